"""Gives a part of a graph another element type: what rows 7 to 10 share.

A **region** is all that hangs together through tensors of one type that TensorRT lacks. Inside, every tensor, constant
and type attribute changes; at its border stand casts. What the caller sees keeps its type where TensorRT reads such a
type at all, and so does what a branch or loop body of the graph reads from outside.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

import numpy as np
import onnx
import onnx_graphsurgeon as gs

from components.surgery.emit import Emitter
from components.surgery.graphs import has_subgraphs, numpy_dtype
from components.surgery.surgery import label

_TYPE_ATTRIBUTES = ("to", "dtype")
WRAPS = frozenset({"Add", "Sub", "Mul", "Sum", "Neg", "Pow", "BitwiseNot", "BitShift", "ReduceSum", "CumSum", "MatMul"})
"""Operators whose results may leave the range of a small integer type, which then wraps around."""


@dataclass
class Region:
    """Nodes that hang together through tensors of one type."""

    dtype: np.dtype
    nodes: list[gs.Node] = field(default_factory=list)
    variables: list[gs.Variable] = field(default_factory=list)
    constants: list[gs.Constant] = field(default_factory=list)

    @property
    def label(self) -> str:
        """Of its first node."""
        return label(self.nodes[0])

    @property
    def path(self) -> str:
        """Beginning of the names of what is written for it."""
        return str(self.nodes[0].name or self.nodes[0].outputs[0].name)

    def has_in(self, node: gs.Node) -> bool:
        """Whether the node reads the type."""
        return any(_is(tensor, self.dtype) for tensor in node.inputs)

    def has_out(self, node: gs.Node) -> bool:
        """Whether the node makes the type."""
        return any(_is(tensor, self.dtype) for tensor in node.outputs)


@dataclass(frozen=True)
class Border:
    """Tensors of a graph whose type is not its own to change."""

    given: frozenset[int]
    """Made outside: inputs, and what branches and loops give. By id."""
    kept: frozenset[int]
    """Read outside: outputs, and what branches and loops read. By id."""


def border(graph: gs.Graph) -> Border:
    """What the graph shares with its caller and with its branches and loops."""
    nested = [node for node in graph.nodes if has_subgraphs(node)]
    given = {id(tensor) for tensor in graph.inputs} | {id(tensor) for node in nested for tensor in node.outputs}
    kept = {id(tensor) for tensor in graph.outputs} | {id(tensor) for node in nested for tensor in node.inputs}
    captured = {name for node in nested for body in _bodies(node) for name in _reads(body)}
    for node in graph.nodes:
        kept |= {id(tensor) for tensor in node.outputs if tensor.name in captured}
        given |= {id(tensor) for tensor in node.inputs if isinstance(tensor, gs.Variable) and not tensor.inputs}
    return Border(frozenset(given), frozenset(kept))


def _bodies(node: gs.Node) -> list[gs.Graph]:
    return [value for value in node.attrs.values() if isinstance(value, gs.Graph)]


def _reads(body: gs.Graph) -> set[str]:
    names = {tensor.name for node in body.nodes for tensor in node.inputs} | {tensor.name for tensor in body.outputs}
    return names.union(*(_reads(inner) for node in body.nodes for inner in _bodies(node)))


def regions(graph: gs.Graph, dtype: np.dtype) -> list[Region]:
    """The regions of a type, in the order of their first nodes; branches and loops belong to none."""
    found: dict[int, Region] = {}
    owner: dict[int, int] = {}
    parent: dict[int, int] = {}

    def root(number: int) -> int:
        while parent[number] != number:
            parent[number] = parent[parent[number]]
            number = parent[number]
        return number

    touching = []
    for number, node in enumerate(graph.nodes):
        tensors = [tensor for tensor in (*node.inputs, *node.outputs) if _is(tensor, dtype)]
        if not tensors or has_subgraphs(node):
            continue
        parent[number] = number
        touching.append((number, node, tensors))
        for tensor in tensors:
            parent[root(number)] = root(owner.setdefault(id(tensor), number))
    seen: set[int] = set()
    for number, node, tensors in touching:
        region = found.setdefault(root(number), Region(dtype))
        region.nodes.append(node)
        for tensor in tensors:
            if id(tensor) in seen:
                continue
            seen.add(id(tensor))
            (region.constants if isinstance(tensor, gs.Constant) else region.variables).append(tensor)
    return list(found.values())


def settled(region: Region, shared: Border) -> bool:
    """Whether nothing is left of the type but casts at the border."""
    return all(node.op == "Cast" for node in region.nodes) and all(
        id(tensor) in shared.given or id(tensor) in shared.kept for tensor in region.variables
    )


def any_unsettled(graph: gs.Graph, dtypes: Iterable[np.dtype]) -> bool:
    """Whether a graph has more of one of the types than casts at its border."""
    present = {
        np.dtype(tensor.dtype) for node in graph.nodes for tensor in (*node.inputs, *node.outputs) if _typed(tensor)
    }
    wanted = present & set(dtypes)
    if not wanted:
        return False
    shared = border(graph)
    return any(not settled(region, shared) for dtype in wanted for region in regions(graph, dtype))


def outside(region: Region, shared: Border) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Names of what enters and what leaves a region, for the proof."""
    made = {id(tensor) for node in region.nodes for tensor in node.outputs}
    entering = {
        tensor.name: None
        for node in region.nodes
        for tensor in node.inputs
        if isinstance(tensor, gs.Variable) and not tensor.is_empty()
        if id(tensor) not in made and (not _is(tensor, region.dtype) or id(tensor) in shared.given)
    }
    leaving = {
        tensor.name: None
        for node in region.nodes
        for tensor in node.outputs
        if not _is(tensor, region.dtype) or id(tensor) in shared.kept
    }
    return tuple(entering), tuple(leaving)


def retype(
    graph: gs.Graph,
    region: Region,
    dtype: np.dtype,
    shared: Border,
    convert: Callable[[np.ndarray], np.ndarray],
    *,
    interface: bool = False,
) -> None:
    """Changes the type of a region.

    Args:
        graph: the graph.
        region: of `regions`; it is spent afterwards.
        dtype: the new type.
        shared: of `border`.
        convert: makes the new constants.
        interface: whether inputs and outputs of the graph change as well, since TensorRT cannot read them.
    """
    emit = Emitter(graph, f"{region.path}/{dtype}")
    old = region.dtype
    constants = {
        id(tensor): gs.Constant(f"{tensor.name}/{dtype}", convert(tensor.values)) for tensor in region.constants
    }
    variables: dict[int, gs.Variable] = {}
    for tensor in region.variables:
        fixed = id(tensor) in shared.given or id(tensor) in shared.kept
        if not fixed or (interface and _at_interface(graph, tensor)):
            tensor.dtype = dtype
        elif id(tensor) in shared.given:
            variables[id(tensor)] = emit.cast(tensor, dtype)
        else:
            inner = gs.Variable(f"{tensor.name}/{dtype}", dtype=dtype, shape=tensor.shape)
            (producer,) = tensor.inputs
            producer.outputs = [inner if output is tensor else output for output in producer.outputs]
            out = emit.cast(inner, old)
            emit.finish(out, tensor)
            variables[id(tensor)] = inner
    for node in region.nodes:
        node.inputs = [constants.get(id(tensor), variables.get(id(tensor), tensor)) for tensor in node.inputs]
        for name in _TYPE_ATTRIBUTES:
            if node.attrs.get(name) == _number(old):
                node.attrs[name] = _number(dtype)
        for name, value in node.attrs.items():
            if isinstance(value, gs.Constant) and value.dtype == old:
                node.attrs[name] = gs.Constant(f"{value.name}/{dtype}", convert(value.values))
            elif isinstance(value, onnx.TensorProto) and value.data_type == _number(old):
                node.attrs[name] = onnx.numpy_helper.from_array(convert(onnx.numpy_helper.to_array(value)), value.name)
    _drop_idle_casts(region, shared)


def wrapped(emit: Emitter, x: gs.Variable, limits: np.iinfo, dtype: np.dtype) -> gs.Variable:
    """`x` as an integer type of these limits would hold it."""
    size = np.array(int(limits.max) - int(limits.min) + 1, dtype)
    if limits.min == 0:
        return emit("Mod", x, size, dtype=dtype)
    low = np.array(int(limits.min), dtype)
    return emit("Add", emit("Mod", emit("Sub", x, low, dtype=dtype), size, dtype=dtype), low, dtype=dtype)


def insert_after(node: gs.Node, write: Callable[[gs.Variable], gs.Variable]) -> None:
    """Puts what `write` makes of the node's output in its place, for all readers."""
    result = node.outputs[0]
    raw = gs.Variable(f"{result.name}/raw", dtype=result.dtype)
    node.outputs = [raw]
    made = write(raw)
    producer = made.inputs[0]
    producer.outputs = [result if tensor is made else tensor for tensor in producer.outputs]


def _at_interface(graph: gs.Graph, tensor: gs.Tensor) -> bool:
    return any(tensor is other for other in (*graph.inputs, *graph.outputs))


def _drop_idle_casts(region: Region, shared: Border) -> None:
    """Takes casts out that change nothing any more; the names at the border stay."""
    inside = {id(tensor) for tensor in region.variables} - shared.kept - shared.given
    for node in region.nodes:
        if node.op != "Cast":
            continue
        source, result = node.inputs[0], node.outputs[0]
        dtype = numpy_dtype(source)
        if dtype is None or _number(dtype) != node.attrs["to"]:
            continue
        if id(result) in inside:
            node.outputs.clear()
            for reader in list(result.outputs):
                reader.inputs = [source if tensor is result else tensor for tensor in reader.inputs]
        elif id(source) in inside and len(source.outputs) == 1:
            node.outputs.clear()
            producer = source.inputs[0]
            producer.outputs = [result if tensor is source else tensor for tensor in producer.outputs]


def _typed(tensor: gs.Tensor) -> bool:
    return not tensor.is_empty() and tensor.dtype is not None and not isinstance(tensor.dtype, int)


def _is(tensor: gs.Tensor, dtype: np.dtype) -> bool:
    return not tensor.is_empty() and numpy_dtype(tensor) == dtype


def _number(dtype: np.dtype) -> int:
    return int(onnx.helper.np_dtype_to_tensor_dtype(dtype))
