"""One pass over a graph that makes every tensor with a data-dependent number of rows static: one rule an operator."""

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field
from typing import TypeAlias

import numpy as np
import onnx_graphsurgeon as gs

from components.surgery.evaluate import EvaluationError
from components.surgery.graphs import static_shape
from components.surgery.static_rows.sizes import Sizes, as_sizes, follow, materialize
from components.surgery.static_rows.spaces import Spaces
from components.surgery.static_rows.values import NotStaticError, Rows
from components.surgery.static_rows.writer import Writer, infer
from components.surgery.surgery import Options, label

Value: TypeAlias = gs.Tensor | Rows | Sizes
"""What a tensor has become: itself (static), padded rows, or numbers of rows."""
Rule = Callable[["Walk", gs.Node, Sequence[Value | None]], Sequence[Value]]
SOURCES = ("NonZero", "NonMaxSuppression")
"""Operators whose number of rows depends on the data."""


@dataclass(eq=False)
class Region:
    """What depends on some sources together."""

    sources: list[gs.Node] = field(default_factory=list)
    nodes: int = 0
    given: dict[str, gs.Tensor] = field(default_factory=dict)
    """Static tensors that the region reads."""
    borders: list[tuple[gs.Tensor, gs.Tensor]] = field(default_factory=list)
    """What was written, and the static tensor of the old graph that it replaces."""
    problem: NotStaticError | None = None
    notes: list[str] = field(default_factory=list)
    """For the report."""
    into: "Region | None" = None
    """The region that this one has become a part of."""

    def root(self) -> "Region":
        """The region as a whole."""
        region = self
        while region.into is not None:
            region = region.into
        return region

    def join(self, other: "Region") -> "Region":
        """Makes one region of two."""
        a, b = self.root(), other.root()
        if a is b:
            return a
        a.sources += b.sources
        a.nodes += b.nodes
        a.given |= b.given
        a.borders += b.borders
        a.notes += b.notes
        a.problem = a.problem or b.problem
        b.into = a
        return a


class Walk:
    """The state of the pass."""

    def __init__(self, graph: gs.Graph, options: Options, rules: dict[str, Rule], excluded: Collection[int]) -> None:
        self.graph = graph
        self.options = options
        self.emit = Writer(graph, "static_rows")
        self.spaces = Spaces(self.emit)
        self._rules = rules
        self._excluded = excluded
        self._values: dict[int, Value | None] = {}
        """By tensor; None where a node on the way has no rule."""
        self._regions: dict[int, Region] = {}
        self._reshaped: set[int] = set()
        """Static tensors whose shape is known only since this walk."""
        self._outputs = list(graph.outputs)
        self._placed: dict[int, gs.Tensor] = {}
        self.region = Region()
        """The one that the node on visit belongs to."""
        self.added: set[str] = set()
        """Names of outputs that the graph did not have."""
        self.regions: list[Region] = []

    def go(self) -> None:
        """Visits every node."""
        for node in list(self.graph.nodes):
            self._visit(node)

    def value(self, tensor: gs.Tensor) -> Value | None:
        """What a tensor has become; None for one that is left out."""
        return None if tensor.is_empty() else self._values.get(id(tensor), tensor)

    def region_of(self, tensor: gs.Tensor) -> Region | None:
        """The region that a tensor belongs to."""
        region = self._regions.get(id(tensor))
        return None if region is None else region.root()

    def static(self, value: Value | None) -> gs.Tensor | None:
        """A value that has no rows as a tensor."""
        assert not isinstance(value, Rows)
        return materialize(value, self.spaces) if isinstance(value, Sizes) else value

    def branch(self, body: gs.Graph, region: Region) -> list[Value]:
        """Visits the nodes of an If's branch, as if they stood in the graph itself."""
        for node in body.nodes:
            if node.op in SOURCES:
                region.sources.append(node)
            inputs = [self.value(tensor) for tensor in node.inputs]
            results = self._apply(node, inputs)
            for tensor, value in zip(node.outputs, results, strict=True):
                self._values[id(tensor)] = value
                self._regions[id(tensor)] = region
        made = [self.value(tensor) for tensor in body.outputs]
        return [value for value in made if value is not None]

    def copy(self, node: gs.Node, tensors: Sequence[gs.Tensor | None]) -> list[gs.Tensor]:
        """The same node on other tensors."""
        return list(self.emit.node(node.op, tensors, node.attrs, outputs=len(node.outputs)))

    def put(self, made: gs.Tensor, old: gs.Tensor) -> None:
        """Gives what was written the name and the readers of the tensor that it replaces."""
        source = self._placed.get(id(made), made)
        if source is not made or not self.emit.wrote(made):
            source = self.emit.renamed(source)
        self._placed[id(made)] = old
        old.shape, old.dtype = source.shape, source.dtype
        self.emit.finish(source, old)

    def undo(self) -> None:
        """Leaves the graph as it was before the walk."""
        self.emit.undo()
        self.graph.outputs = self._outputs

    def _visit(self, node: gs.Node) -> None:
        read = [tensor for tensor in (*node.inputs, *_captured(node)) if id(tensor) in self._regions]
        is_source = node.op in SOURCES and id(node) not in self._excluded
        if not read and not is_source:
            self._reshape(node)
            return
        region = self._regions[id(read[0])].root() if read else self._new_region()
        for tensor in read[1:]:
            region = region.join(self._regions[id(tensor)])
        region.nodes += 1
        if is_source:
            region.sources.append(node)
        results = self._results(node, region)
        for tensor, value in zip(node.outputs, results, strict=True):
            if value is None or isinstance(value, Rows | Sizes | gs.Constant):
                self._values[id(tensor)] = value
                self._regions[id(tensor)] = region
                continue
            tensor.shape, tensor.dtype = value.shape, value.dtype
            self._reshaped.add(id(tensor))
            region.borders.append((value, tensor))

    def _new_region(self) -> Region:
        self.regions.append(Region())
        return self.regions[-1]

    def _results(self, node: gs.Node, region: Region) -> Sequence[Value | None]:
        nothing = [None] * len(node.outputs)
        inputs = [self.value(tensor) for tensor in node.inputs]
        if any(value is None and not tensor.is_empty() for value, tensor in zip(inputs, node.inputs, strict=True)):
            return nothing
        self.region = region
        self.emit.given = region.given
        self.emit.prefix = f"{node.name or node.outputs[0].name}/static"
        try:
            return self._apply(node, inputs)
        except NotStaticError as error:
            region.problem = region.problem or error
        except EvaluationError as error:
            region.problem = region.problem or NotStaticError(node, f"{called(node)} cannot be followed: {error}")
        return nothing

    def _apply(self, node: gs.Node, inputs: Sequence[Value | None]) -> Sequence[Value]:
        if node.op == "Constant" and isinstance(node.attrs.get("value"), gs.Constant):
            return [self.emit.constant(node.attrs["value"].values)]
        if node.domain not in (None, "", "ai.onnx"):
            raise NotStaticError(node, f"{called(node)} is not an operator of the standard")
        if any(isinstance(value, Sizes) for value in inputs):
            numbers = [as_sizes(value) for value in inputs if value is not None]
            if all(value is not None for value in numbers):
                made = follow(node, [value for value in numbers if value is not None])
                if made is not None:
                    return [made]
        rule = self._rules.get(node.op)
        if rule is not None:
            return rule(self, node, inputs)
        if any(isinstance(value, Rows) for value in inputs) or any(
            isinstance(value, gs.Graph) for value in node.attrs.values()
        ):
            raise NotStaticError(node, f"{called(node)} has no rule for rows whose number depends on the data")
        return self.copy(node, [self.static(value) for value in inputs])

    def _reshape(self, node: gs.Node) -> None:
        """Infers the shapes of an untouched node whose inputs' shapes have become known."""
        if not any(id(tensor) in self._reshaped for tensor in node.inputs):
            return
        if all(static_shape(tensor) is not None for tensor in node.outputs):
            return
        try:
            found = infer(node, self.graph, self.emit.opsets)
        except EvaluationError:
            return
        for tensor, (dtype, shape) in zip(node.outputs, found, strict=True):
            tensor.dtype, tensor.shape = dtype, shape
            self._reshaped.add(id(tensor))


def called(node: gs.Node) -> str:
    """How a problem names a node."""
    return f"the {node.op} {label(node)!r}"


def shape_of(value: Value) -> tuple[int, ...] | None:
    """The padded shape of a value; None where it is not known."""
    if isinstance(value, Rows):
        return value.shape
    if isinstance(value, Sizes):
        return tuple(int(size) for size in np.shape(value.entries))
    return static_shape(value)


def _captured(node: gs.Node) -> list[gs.Tensor]:
    """Tensors of the outer graph that the node's own graphs read."""
    read = []
    for value in node.attrs.values():
        if isinstance(value, gs.Graph):
            for inner in value.nodes:
                read += [*inner.inputs, *_captured(inner)]
            read += value.outputs
    return read
