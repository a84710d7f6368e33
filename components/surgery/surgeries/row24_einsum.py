"""Row 24: Einsum with three or more inputs, an ellipsis or a diagonal, as MatMul, Mul, Transpose and ReduceSum.

Older TensorRT takes Einsum of two inputs without either. The inputs are contracted pair by pair, in the order that
NumPy's `einsum_path` finds cheapest: labels of one input alone are summed first, the pair's common labels that go on
are the batch of a MatMul, those that do not are what it sums over. Sizes of an ellipsis broadcast, as in MatMul.
"""

import math
import string
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import onnx_graphsurgeon as gs

from components.surgery.emit import Emitter
from components.surgery.graphs import numpy_dtype
from components.surgery.surgery import Change, Options, Surgery, label

_OPEN_SIZE = 64
"""What an open dimension counts for in the order of the pairs."""
_WHY = "TensorRT before 10 takes Einsum of at most two inputs, without an ellipsis or a diagonal"


class _NotPlainError(Exception):
    """The equation, or what is known of the shapes, does not allow the plain form."""


@dataclass
class _Term:
    """A tensor with one label for each axis."""

    tensor: gs.Tensor
    labels: str


@dataclass
class _Contraction:
    emit: Emitter
    dtype: np.dtype
    sizes: dict[str, int | None]
    """Of the labels, the largest of a label that broadcasts; None: open."""

    def total(self, labels: str) -> int | None:
        """Product of sizes, None where one is open."""
        sizes = [self.sizes[each] for each in labels]
        return None if None in sizes else math.prod(size for size in sizes if size is not None)

    def transpose(self, term: _Term, labels: str) -> gs.Tensor:
        if term.labels == labels:
            return term.tensor
        order = [term.labels.index(each) for each in labels]
        return self.emit("Transpose", term.tensor, dtype=self.dtype, perm=order)

    def reshape(self, x: gs.Tensor, kept: int, targets: Sequence[int | None]) -> gs.Tensor:
        """`x` with its first `kept` axes as they are and others behind, of which one size may be open."""
        if sum(size is None for size in targets) > 1:
            raise _NotPlainError
        shape = [0] * kept + [-1 if size is None else size for size in targets]
        return self.emit.reshape(x, shape, dtype=self.dtype)

    def sum_over(self, term: _Term, labels: str) -> _Term:
        """The term without some of its labels."""
        axes = [place for place, each in enumerate(term.labels) if each in labels]
        if not axes:
            return term
        left = "".join(each for each in term.labels if each not in labels)
        return _Term(self.emit.reduce("ReduceSum", term.tensor, axes, keepdims=False, dtype=self.dtype), left)

    def diagonal(self, term: _Term) -> _Term:
        """The term with every label once."""
        while True:
            twice = next((each for each in term.labels if term.labels.count(each) > 1), None)
            if twice is None:
                return term
            size = self.sizes[twice]
            if size is None:
                raise _NotPlainError
            first, second = [place for place, each in enumerate(term.labels) if each == twice][:2]
            others = [place for place in range(len(term.labels)) if place not in (first, second)]
            moved = self.emit("Transpose", term.tensor, dtype=self.dtype, perm=[*others, first, second])
            flat = self.reshape(moved, len(others), [size * size])
            places = np.arange(size, dtype=np.int64) * (size + 1)
            picked = self.emit("Gather", flat, places, dtype=self.dtype, axis=len(others))
            term = _Term(picked, "".join(term.labels[place] for place in others) + twice)

    def pair(self, a: _Term, b: _Term, wanted: str) -> _Term:
        """Two terms as one, with the labels that are wanted later."""
        a = self.sum_over(a, "".join(each for each in a.labels if each not in b.labels + wanted))
        b = self.sum_over(b, "".join(each for each in b.labels if each not in a.labels + wanted))
        both = [each for each in a.labels if each in b.labels]
        batch = "".join(each for each in both if each in wanted)
        summed = "".join(each for each in both if each not in wanted)
        left = "".join(each for each in a.labels if each not in both)
        right = "".join(each for each in b.labels if each not in both)
        result = batch + left + right
        if not summed:
            x = self._widened(self.transpose(a, batch + left), len(batch + left), len(right))
            y = self._widened(self.transpose(b, batch + right), len(batch), len(left))
            return _Term(self.emit("Mul", x, y, dtype=self.dtype), result)
        x = self._merged(self.transpose(a, batch + left + summed), len(batch), left, summed)
        y = self._merged(self.transpose(b, batch + summed + right), len(batch), summed, right)
        made = self.emit("MatMul", x, y, dtype=self.dtype)
        if len(left) != 1 or len(right) != 1:
            made = self.reshape(made, len(batch), [self.sizes[each] for each in left + right])
        return _Term(made, result)

    def _merged(self, x: gs.Tensor, batch: int, rows: str, columns: str) -> gs.Tensor:
        """`x` as a matrix behind its batch axes."""
        if len(rows) == 1 and len(columns) == 1:
            return x
        return self.reshape(x, batch, [self.total(rows), self.total(columns)])

    def _widened(self, x: gs.Tensor, at: int, count: int) -> gs.Tensor:
        """`x` with axes of size 1."""
        if not count:
            return x
        return self.emit("Unsqueeze", x, np.arange(at, at + count, dtype=np.int64), dtype=self.dtype)


def matches(graph: gs.Graph) -> bool:
    """Whether there is an Einsum that older TensorRT does not take."""
    return any(_is_hard(node) for node in graph.nodes)


def apply(graph: gs.Graph, options: Options) -> Sequence[Change]:
    """Replaces each whose ranks are known and that has no more than one open size to merge."""
    changes = []
    for node in list(graph.nodes):
        if not _is_hard(node) or label(node) in options.skip:
            continue
        before = len(graph.nodes)
        try:
            changes.append(_replace(graph, node))
        except _NotPlainError:
            for made in graph.nodes[before:]:
                made.inputs.clear()
            del graph.nodes[before:]
    return changes


def _is_hard(node: gs.Node) -> bool:
    if node.op != "Einsum" or any(tensor.shape is None for tensor in node.inputs):
        return False
    dtype = numpy_dtype(node.inputs[0])
    if dtype is None or dtype.kind != "f":
        return False
    equation = node.attrs["equation"].replace(" ", "")
    terms = equation.partition("->")[0].split(",")
    twice = any(len(set(term)) < len(term) for term in (each.replace(".", "") for each in terms))
    return len(node.inputs) > 2 or "..." in equation or twice


def _replace(graph: gs.Graph, node: gs.Node) -> Change:
    called, result = label(node), node.outputs[0]
    ranks = [len(tensor.shape) for tensor in node.inputs]
    terms, output = expand(node.attrs["equation"], ranks)
    emit = Emitter(graph, f"{called}/pairs")
    work = _Contraction(emit, np.dtype(numpy_dtype(node.inputs[0])), _sizes(node, terms))
    waiting = [work.diagonal(_Term(tensor, labels)) for tensor, labels in zip(node.inputs, terms, strict=True)]
    for places in _path(waiting, output, work.sizes):
        chosen = [waiting.pop(place) for place in sorted(places, reverse=True)][::-1]
        first = chosen[0]
        for position, second in enumerate(chosen[1:], 2):
            later = output + "".join(term.labels for term in (*waiting, *chosen[position:]))
            first = work.pair(first, second, later)
        waiting.append(first)
    (last,) = waiting
    last = work.sum_over(last, "".join(each for each in last.labels if each not in output))
    made = work.transpose(last, output)
    emit.finish(emit("Identity", made, dtype=work.dtype), result)
    inputs = tuple(dict.fromkeys(tensor.name for tensor in node.inputs))
    what = f"{node.attrs['equation']!r} as pairs of MatMul and Mul"
    return Change(called, _WHY, what, inputs=inputs, outputs=(result.name,))


def expand(equation: str, ranks: Sequence[int]) -> tuple[list[str], str]:
    """An equation without ellipsis and with an output.

    Args:
        equation: as of ONNX's Einsum.
        ranks: of the inputs.

    Returns:
        The labels of each input and of the output; the axes of an ellipsis get labels that are not in use.
    """
    left, arrow, output = equation.replace(" ", "").partition("->")
    terms = left.split(",")
    widths = [
        rank - len(term.replace("...", "")) if "..." in term else 0 for term, rank in zip(terms, ranks, strict=True)
    ]
    free = [each for each in string.ascii_letters if each not in equation]
    width = max(widths)
    if len(free) < width or min(widths) < 0:
        raise _NotPlainError
    ellipsis = "".join(free[:width])
    full = [term.replace("...", ellipsis[width - own :]) for term, own in zip(terms, widths, strict=True)]
    if not arrow:
        once = sorted(each for each in set(left) - set(".,") if left.count(each) == 1)
        return full, ellipsis + "".join(once)
    if width and "..." not in output:
        raise _NotPlainError
    return full, output.replace("...", ellipsis)


def _sizes(node: gs.Node, terms: Sequence[str]) -> dict[str, int | None]:
    sizes: dict[str, int | None] = {}
    for tensor, labels in zip(node.inputs, terms, strict=True):
        for side, each in zip(tensor.shape, labels, strict=True):
            size = int(side) if isinstance(side, int | np.integer) else None
            known = sizes.get(each, 1)
            # Of a broadcast label, the size that is not 1; an open one may be 1 and tells nothing.
            sizes[each] = size if known == 1 else known if size in (None, 1) else size
            if known is None and size == 1:
                sizes[each] = None
    return sizes


def _path(terms: Sequence[_Term], output: str, sizes: dict[str, int | None]) -> list[tuple[int, ...]]:
    shapes = [[sizes[each] or _OPEN_SIZE for each in term.labels] for term in terms]
    operands = [np.broadcast_to(np.float32(0), shape) for shape in shapes]
    equation = ",".join(term.labels for term in terms) + "->" + output
    path, _ = np.einsum_path(equation, *operands, optimize="optimal" if len(terms) < 6 else "greedy")
    return [places for places in path[1:] if len(places) > 1]


SURGERY = Surgery(
    row=24,
    name="Einsum",
    thread="onnx-tensorrt: Einsum with more than two inputs or ellipsis is not supported",
    matches=matches,
    apply=apply,
)
