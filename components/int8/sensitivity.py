"""Which quantized layers do most harm: each quantized alone, and the heads compared with FP32."""

import time
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy.typing as npt

from components.int8.sqnr import sqnr_db


class Switch(Protocol):
    """A model whose quantized nodes can be turned on one by one."""

    units: list[str]

    def outputs(self, on: Collection[str], images: int | None = None) -> list[list[npt.NDArray[Any]]]:
        """Head outputs image by image with only these units quantized."""


@dataclass(frozen=True)
class Blame:
    """A quantized node and what is left of the heads when only it is quantized."""

    unit: str
    sqnr_db: float


def rank(
    switch: Switch,
    exact: Sequence[Sequence[npt.NDArray[Any]]],
    seconds: float,
    each: Callable[[int, int], None] = lambda *_: None,
) -> list[Blame]:
    """The quantized nodes, the most harmful first.

    Args:
        switch: the quantized model.
        exact: FP32 heads of the same images.
        seconds: time for it; with little of it fewer images are used, at least one. Nodes that it does not suffice for
            come last, with an SQNR of infinity.
        each: told how many nodes of how many are done.

    Returns:
        Every unit, by ascending SQNR of the worst head; equal ones in the order of the graph.
    """
    started = time.monotonic()
    switch.outputs(switch.units[:1], 1)
    one_pass = time.monotonic() - started
    images = max(1, min(len(exact), int(seconds / max(one_pass * len(switch.units), 1e-9))))
    found = []
    for number, unit in enumerate(switch.units):
        each(number, len(switch.units))
        if time.monotonic() - started > seconds and number:
            found.append(Blame(unit, float("inf")))
            continue
        found.append(Blame(unit, round(sqnr_db(exact[:images], switch.outputs([unit], images)), 2)))
    return sorted(found, key=lambda blame: blame.sqnr_db)
