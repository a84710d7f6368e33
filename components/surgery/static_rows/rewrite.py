"""Makes the data-dependent regions of a graph static, each as a whole or not at all."""

from collections.abc import Callable, Collection, Sequence

import onnx_graphsurgeon as gs

from components.surgery.graphs import is_open
from components.surgery.sorting import is_body
from components.surgery.static_rows import choosing, detecting, reducing, row_wise, shaping
from components.surgery.static_rows.outputs import finish_outputs
from components.surgery.static_rows.values import NotStaticError, OpenShapeError
from components.surgery.static_rows.walk import Region, Rule, Walk
from components.surgery.surgery import Change, Options, label, refusal

RULES: dict[str, Rule] = {
    **row_wise.RULES,
    **shaping.RULES,
    **choosing.RULES,
    **reducing.RULES,
    **detecting.RULES,
}


def make_static(
    graph: gs.Graph, options: Options, wanted: Callable[[Collection[str]], bool], why: str, way_out: str
) -> Sequence[Change]:
    """Replaces every region that can be.

    Args:
        graph: the graph.
        options: nodes to leave, rounds of the NMS.
        wanted: whether a region with these source operators is to be looked at.
        why: why such a region is a problem.
        way_out: what the user can do where it is refused.

    Returns:
        What was done, and what was refused with the node that stands in the way.
    """
    graph.toposort()
    excluded: set[int] = set()
    refusals: list[Change] = []
    while True:
        walk = Walk(graph, options, RULES, excluded)
        walk.go()
        regions = [region for region in walk.regions if region.into is None]
        ends = {region: _ends(walk, region) for region in regions if region.problem is None}
        out = [region for region in regions if _is_out(region, options, wanted)]
        if not out:
            break
        walk.undo()
        for region in out:
            excluded |= {id(node) for node in region.sources}
            skipped = any(label(node) in options.skip for node in region.sources)
            if region.problem is not None and not skipped and wanted({node.op for node in region.sources}):
                refusals.append(_refuse(graph, region, region.problem, way_out))
    done = [_commit(walk, region, ends[region], why) for region in regions]
    if not done:
        walk.undo()
    return [*done, *refusals]


def _is_out(region: Region, options: Options, wanted: Callable[[Collection[str]], bool]) -> bool:
    return (
        region.problem is not None
        or not wanted({node.op for node in region.sources})
        or any(label(node) in options.skip for node in region.sources)
    )


def _ends(walk: Walk, region: Region) -> tuple[list[str], list[str]]:
    try:
        walk.emit.given = region.given
        return finish_outputs(walk, region)
    except NotStaticError as error:
        region.problem = error
        return [], []


def _refuse(graph: gs.Graph, region: Region, problem: NotStaticError, way_out: str) -> Change:
    source = region.sources[0]
    opened = [] if is_body(graph) else [tensor for tensor in graph.inputs if is_open(tensor)]
    if opened and isinstance(problem, OpenShapeError):
        listed = ", ".join(f"{tensor.name} [{', '.join(map(str, tensor.shape))}]" for tensor in opened)
        way_out = f"pin the open inputs (--input-shape, target.input_shape): {listed}; or {way_out}"
    words = str(problem)
    if problem.node is not source:
        words = f"{words} (from the {source.op} {label(source)!r})"
    return refusal(problem.node, words, way_out)


def _commit(walk: Walk, region: Region, ends: tuple[list[str], list[str]], why: str) -> Change:
    padded, words = ends
    for made, old in region.borders:
        walk.put(made, old)
    outputs = tuple(dict.fromkeys(old.name for _, old in region.borders if old.name not in walk.added))
    inputs = tuple(name for name in region.given if name not in outputs)
    counts: dict[str, int] = {}
    for node in region.sources:
        counts[node.op] = counts.get(node.op, 0) + 1
    made = ", ".join(f"{number} {op}" for op, number in counts.items())
    what = "; ".join(
        [f"{made} and {region.nodes} nodes that follow have a fixed size, padding is masked", *region.notes, *words]
    )
    return Change(label(_first(region)), why, what, inputs=inputs, outputs=outputs, padded=tuple(padded))


def _first(region: Region) -> gs.Node:
    suppressions = [node for node in region.sources if node.op == "NonMaxSuppression"]
    return (suppressions or region.sources)[0]
