"""Where the time goes: p50 of every measured row, the model's share and the rest."""

from components.core.contracts.leaderboard import Candidate, Leaderboard
from components.core.formats import milliseconds, plain, times
from components.report.charts.scatter import region_of, shortened
from components.report.charts.svg import figure, inline
from components.report.theme import kind_of, placeholder

WIDTH = 680.0
_ROW, _REST = 23.0, 74.0  # heights in points


def measured(board: Leaderboard) -> list[Candidate]:
    """The rows with a latency, the fastest first."""
    rows = [row for row in board.candidates if row.latency_ms is not None]
    return sorted(rows, key=lambda row: (row.latency_ms.p50 if row.latency_ms else 0.0, row.id))


def split(row: Candidate) -> tuple[float, float]:
    """Milliseconds of the model alone and of everything around it; the model's share is all where it was not timed."""
    whole = row.latency_ms.p50 if row.latency_ms else 0.0
    # The two are timed in different rounds: on a model without pre-processing their order is chance.
    model = min(row.model_latency_ms.p50, whole) if row.model_latency_ms else whole
    return model, whole - model


def bars(board: Leaderboard) -> str | None:
    """The chart as inline SVG, or None where no row has a latency."""
    rows = measured(board)
    if not rows:
        return None
    from matplotlib.patches import Patch

    with figure(WIDTH, _REST + _ROW * len(rows)) as drawing:
        axes = drawing.add_subplot()
        for position, row in enumerate(rows):
            model, rest = split(row)
            colour = placeholder(f"kind-{kind_of(row, board).name}")
            axes.barh(position, model, height=0.62, color=colour, linewidth=0)
            axes.barh(position, rest, left=model, height=0.62, color=colour, alpha=0.38, linewidth=0)
            gain = f" ({times(row.speedup.ratio)})" if row.speedup and row.id != board.baseline else ""
            axes.annotate(
                f"{milliseconds(model + rest)}{gain}", (model + rest, position), (5, 0), textcoords="offset points",
                va="center", fontsize=9, fontweight="bold" if row.id == board.winner else "normal",
            )  # fmt: skip
        axes.set_xlim(0, max(sum(split(row)) for row in rows) * 1.2)
        axes.set_ylim(len(rows) - 0.4, -0.6)
        axes.set_yticks(range(len(rows)), [shortened(row.id) for row in rows])
        for text, row in zip(axes.get_yticklabels(), rows, strict=True):
            text.set_color(placeholder("ink"))
            text.set_fontweight("bold" if row.id == board.winner else "normal")
        limit = region_of(board).max_p50
        if limit is not None:
            axes.axvline(limit, color=placeholder("goal"), linewidth=1.1, linestyle=(0, (4, 3)), zorder=1.5)
        axes.set_xlabel("end-to-end p50 latency, ms")
        axes.grid(visible=True, axis="x")
        axes.tick_params(length=0)
        axes.spines["left"].set_visible(False)
        ink = placeholder("ink")
        handles: list[object] = [
            Patch(facecolor=ink, label="the model"),
            Patch(facecolor=ink, alpha=0.38, label="pre- and post-processing"),
        ]
        if limit is not None:
            from matplotlib.lines import Line2D

            handles.append(
                Line2D([], [], color=placeholder("goal"), linestyle=(0, (4, 3)), label=f"goal: {milliseconds(limit)}")
            )
        drawing.legend(
            handles=handles, loc="outside upper left", ncols=3, frameon=False, fontsize=8.5, borderaxespad=0.1,
            labelcolor=placeholder("muted"),
        )  # fmt: skip
        return inline(drawing, "bars", "End-to-end p50 latency of every measured row", _describe(rows))


def _describe(rows: list[Candidate]) -> str:
    parts = []
    for row in rows:
        model, rest = split(row)
        around = f" ({milliseconds(model)} in the model)" if row.model_latency_ms else ""
        parts.append(f"{plain(row.id)}: {milliseconds(model + rest)}{around}")
    return "; ".join(parts) + "."
