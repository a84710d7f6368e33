"""Colours by role, the same in charts, tables and text.

Charts are drawn in placeholder colours that become CSS variables, so that one SVG is right in a light page, in a dark
page and on paper. The kinds are told apart with any colour vision: the palette is Okabe and Ito's (2008).
"""

from dataclasses import dataclass

from components.core.contracts.leaderboard import Candidate, Leaderboard


@dataclass(frozen=True)
class Kind:
    """How rows of one kind look."""

    name: str
    label: str
    marker: str
    """Matplotlib marker; the shape tells kinds apart where the colour cannot."""
    light: str
    dark: str


KINDS = (
    Kind("baseline", "baseline, as you run it", "o", "#1a1a1a", "#f2f2f2"),
    Kind("yardstick", "untouched model, other runtime", "s", "#6b7280", "#9ca3af"),
    Kind("surgery", "surgery", "D", "#b5487f", "#e39ac4"),
    Kind("int8", "int8", "^", "#0072b2", "#56b4e9"),
    Kind("fp16", "fp16", "v", "#d55e00", "#f0a04b"),
    Kind("other", "other techniques", "P", "#00805c", "#35c79b"),
)

ROLES = {
    "ink": ("#1f2328", "#e6e9ed"),
    "muted": ("#59626d", "#9aa4b0"),
    "grid": ("#d9dee4", "#333b45"),
    "panel": ("#ffffff", "#171c22"),
    "goal": ("#00805c", "#35c79b"),
    "front": ("#7a828c", "#8d97a3"),
}
"""Name -> colour in a light and in a dark page."""

_BY_NAME = {kind.name: kind for kind in KINDS}
_NAMES = [*ROLES, *(f"kind-{kind.name}" for kind in KINDS)]


def kind_of(row: Candidate, board: Leaderboard) -> Kind:
    """What a row is drawn as: by its last technique, or as the baseline or a yardstick."""
    if row.id == board.baseline:
        return _BY_NAME["baseline"]
    if row.reference:
        return _BY_NAME["yardstick"]
    return _BY_NAME.get(row.techniques[-1] if row.techniques else row.rung, _BY_NAME["other"])


def placeholder(name: str) -> str:
    """The colour that stands for a role or ``kind-<name>`` while a chart is drawn."""
    return f"#0102{_NAMES.index(name):02x}"


def variables() -> dict[str, str]:
    """Placeholder colour -> the CSS variable that takes its place."""
    return {placeholder(name): f"var(--{name})" for name in _NAMES}


def css(*, dark: bool) -> str:
    """The declarations of all variables for one colour scheme."""
    pairs = {**ROLES, **{f"kind-{kind.name}": (kind.light, kind.dark) for kind in KINDS}}
    return "".join(f"--{name}:{colours[1 if dark else 0]};" for name, colours in pairs.items())
