"""Turns what a parser or a builder left behind into one line that a person can act on."""

import re
from typing import NamedTuple

_LIMIT = 300
_WAYS_OUT = {
    "NonMaxSuppression": "surgery row 12 replaces it when its sizes and thresholds are constant",
    "RoiAlign": "surgery row 14 replaces it when the feature map's shape and sampling_ratio are fixed",
    "NonZero": "surgery row 15 replaces it when its mask's shape is fixed; see the surgery report for why it stayed",
    "If": "surgery row 18 folds it when its condition is constant",
    "Loop": "unroll it in the model; its trip count must be constant",
}
_OPERATORS = {"NMS": "NonMaxSuppression", "NON_ZERO": "NonZero", "CONDITION": "If", "TRIP_LIMIT": "Loop"}
"""Kinds of TensorRT layers -> the ONNX operator that they came of."""
_PREFIX = re.compile(r"^(IBuilder::\w+|\[[\w.:]+\]|\w+): ?(?=Error Code)|^\[[\w.]+::\w+::\d+\] ?")


class Failure(NamedTuple):
    """One error of the parser or the builder."""

    operator: str
    """ONNX operator or TensorRT layer kind; empty where unknown."""
    node: str
    words: str


def explain(failures: list[Failure], log: list[str]) -> str:
    """The first failure as ``operator node: the tool's own words; way out``.

    Args:
        failures: of the parser, or of the builder with the layer it names.
        log: error lines of the tool, used where the failures say nothing.
    """
    if not failures:
        return _short(_clean(log[0])) if log else "it gave no reason"
    first = failures[0]
    operator = _OPERATORS.get(first.operator, first.operator)
    where = " ".join(part for part in (operator, repr(first.node) if first.node else "") if part)
    words = _short(_clean(first.words or (log[0] if log else "no reason given")))
    more = f" (and {len(failures) - 1} more)" if len(failures) > 1 else ""
    way_out = f"; {_WAYS_OUT[operator]}" if operator in _WAYS_OUT else ""
    return f"{where}: {words}{more}{way_out}" if where else f"{words}{more}"


def _clean(words: str) -> str:
    text = " ".join(words.split())
    text = re.sub(r"^\[[^\]]*\] \[TRT\] \[[EF]\] ", "", text)
    text = _PREFIX.sub("", text)
    return re.sub(r" In \w+ at /\S+:\d+\)?", "", text).strip()


def _short(text: str) -> str:
    return text if len(text) <= _LIMIT else f"{text[: _LIMIT - 3]}..."
