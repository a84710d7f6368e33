"""Turns what a parser or a builder left behind into one line that a person can act on."""

from typing import NamedTuple

from components.core.tensorrt_tools.rules import rule_for
from components.core.tensorrt_tools.words import plain, shortened_words

_OPERATORS = {"NMS": "NonMaxSuppression", "NON_ZERO": "NonZero", "CONDITION": "If", "TRIP_LIMIT": "Loop"}
"""Kinds of TensorRT layers -> the ONNX operator that they came of."""


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
        return shortened_words(plain(log[0])) if log else "it gave no reason"
    first = failures[0]
    operator = _OPERATORS.get(first.operator, first.operator)
    where = " ".join(part for part in (operator, repr(first.node) if first.node else "") if part)
    words = plain(first.words or (log[0] if log else "no reason given"))
    more = f" (and {len(failures) - 1} more)" if len(failures) > 1 else ""
    rule = rule_for(operator, words) if operator else None
    way_out = f"; {rule.way_out}" if rule else ""
    return f"{where + ': ' if where else ''}{shortened_words(words)}{more}{way_out}"
