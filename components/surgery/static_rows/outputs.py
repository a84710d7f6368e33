"""Rows that leave the graph: a fixed number, the real ones first.

A new output says how many are real. A detector's scores say it as well: their padding is -1.
"""

from collections.abc import Sequence

import numpy as np
import onnx_graphsurgeon as gs

from components.surgery.static_rows.values import Rows, Space
from components.surgery.static_rows.walk import Region, Walk

PADDING = -1.0
"""Score of a row that is not real; no probability is below 0."""
_RENAMING = ("Unsqueeze", "Squeeze", "Cast", "Identity", "Reshape")


def finish_outputs(walk: Walk, region: Region) -> tuple[list[str], list[str]]:
    """Gives each output of the graph that belongs to the region its static form.

    Returns:
        Names of the outputs with padded rows, and sentences about them for the report.
    """
    spaces: dict[Space, list[tuple[gs.Tensor, Rows]]] = {}
    for output in list(walk.graph.outputs):
        value = walk.value(output)
        if walk.region_of(output) is not region or value is None:
            continue
        if isinstance(value, Rows):
            packed = walk.spaces.plain(walk.spaces.pack(value))
            spaces.setdefault(packed.space, []).append((output, packed))
        else:
            made = walk.static(value)
            assert made is not None
            region.borders.append((made, output))
    scored = _scores(walk, region)
    names, words = [], []
    for space, members in spaces.items():
        names += [output.name for output, _ in members]
        words.append(_finish(walk, region, space, members, scored))
    return names, words


def _finish(
    walk: Walk, region: Region, space: Space, members: Sequence[tuple[gs.Tensor, Rows]], scored: set[int]
) -> str:
    names = ", ".join(output.name for output, _ in members)
    if space.full:
        region.borders += [(rows.tensor, output) for output, rows in members]
        return f"{names} always have {space.size} rows"
    count = walk.spaces.count(space)
    number = gs.Variable(f"{members[0][0].name}_rows", np.int64, (1,))
    region.borders.append((walk.emit.reshape(count, (1,)), number))
    walk.graph.outputs.append(number)
    walk.added.add(number.name)
    told = f"output {number.name} says how many are real"
    scores = [output.name for output, rows in members if id(output) in scored and len(rows.shape) == 1]
    if scores:
        for output, rows in members:
            hidden = walk.spaces.hide(rows, np.array(PADDING, rows.dtype)) if output.name in scores else rows.tensor
            region.borders.append((hidden, output))
        return (
            f"{names} now have {space.size} rows: the real ones first, then others with {PADDING:g} as "
            f"{', '.join(scores)}; {told}"
        )
    first = walk.emit("Less", np.arange(space.size), count)
    places = walk.emit("Where", first, np.arange(space.size), np.array(0))
    for output, rows in members:
        region.borders.append((walk.emit("Gather", rows.tensor, places, axis=rows.axis), output))
    return f"{names} now have {space.size} rows: the real ones first, then the first again; {told}"


def _scores(walk: Walk, region: Region) -> set[int]:
    """Outputs (by identity) that are the scores by which a NonMaxSuppression of the region has chosen."""
    ranked = {id(_origin(node.inputs[1])) for node in region.sources if node.op == "NonMaxSuppression"}
    found = set()
    for output in walk.graph.outputs:
        tensor = output
        while tensor.inputs and (tensor.inputs[0].op in _RENAMING or tensor.inputs[0].op.startswith("Gather")):
            tensor = tensor.inputs[0].inputs[0]
            if id(_origin(tensor)) in ranked:
                found.add(id(output))
    return found


def _origin(tensor: gs.Tensor) -> gs.Tensor:
    while tensor.inputs and tensor.inputs[0].op in _RENAMING:
        tensor = tensor.inputs[0].inputs[0]
    return tensor
