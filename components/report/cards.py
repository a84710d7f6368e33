"""What the steps noted about a candidate (engine card, parity, INT8 layers...) as sections of plain rows and tables."""

import json
import math
from dataclasses import dataclass, field
from typing import Any

from components.core.contracts.leaderboard import Candidate

_TITLES = {
    "engine": "Engine",
    "parity": "Parity with the model as you run it",
    "int8": "INT8",
    "fp16": "FP16",
    "surgery": "Graph surgery",
    "calibration": "Calibration",
}
_HIDDEN = frozenset({"detections", "verdict"})  # shown elsewhere: the strip of images, the reason
_MAX_ITEMS, _MAX_ROWS, _MAX_COLUMNS, _MAX_DEPTH = 80, 200, 8, 4


@dataclass
class Table:
    """A list of records: layers, iterations."""

    title: str
    columns: list[str]
    rows: list[list[str]]
    left_out: int = 0


@dataclass
class Card:
    """One key of `Candidate.details`."""

    title: str
    rows: list[tuple[str, str]] = field(default_factory=list)
    tables: list[Table] = field(default_factory=list)


def cards(row: Candidate) -> list[Card]:
    """The sections of one candidate, in the order in which the steps noted them; empty ones are left out."""
    found = []
    loose = Card("Notes")
    for key, value in row.details.items():
        if key in _HIDDEN:
            continue
        if isinstance(value, dict | list):
            card = Card(_TITLES.get(key, words(key).capitalize()))
            _fill(card, value, (), 0)
            found.append(card)
        else:
            loose.rows.append((words(key), text_of(value)))
    if row.options:
        options = Card("Runtime options")
        _fill(options, row.options, (), 0)
        found.append(options)
    if row.versions:
        found.append(Card("Versions", sorted(row.versions.items())))
    return [card for card in [loose, *found] if card.rows or card.tables]


def words(key: object) -> str:
    """``max_relative_error`` -> ``max relative error``."""
    return str(key).replace("_", " ").strip()


def text_of(value: Any) -> str:
    """A scalar, or a list of scalars, as a person reads it."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if value is None:
        return "none"
    if isinstance(value, float):
        return f"{value:.0f}" if math.isfinite(value) and abs(value) >= 10_000 else f"{value:.4g}"
    if isinstance(value, list | tuple):
        shown = ", ".join(text_of(item) for item in value[:_MAX_ITEMS]) or "none"
        return shown if len(value) <= _MAX_ITEMS else f"{shown} and {len(value) - _MAX_ITEMS} more"
    if isinstance(value, dict):
        return json.dumps(value, default=str)
    return str(value)


def _fill(card: Card, value: Any, path: tuple[str, ...], depth: int) -> None:
    if isinstance(value, dict) and depth < _MAX_DEPTH:
        for key, inner in value.items():
            _fill(card, inner, (*path, words(key)), depth + 1)
    elif isinstance(value, list) and value and all(isinstance(item, dict) for item in value):
        columns = list(dict.fromkeys(str(key) for item in value for key in item))[:_MAX_COLUMNS]
        rows = [[text_of(item[key]) if key in item else "" for key in columns] for item in value[:_MAX_ROWS]]
        left_out = max(len(value) - _MAX_ROWS, 0)
        card.tables.append(Table(": ".join(path), [words(column) for column in columns], rows, left_out))
    else:
        card.rows.append((": ".join(path), text_of(value)))
