"""What a tensor with a data-dependent number of rows is, once it has a fixed size.

The rows that there could be are all there, and a boolean for each says whether it is real. Real rows need not come
first: they are moved only where their order or number matters.
"""

from dataclasses import dataclass, field

import numpy as np
import onnx_graphsurgeon as gs


class NotStaticError(Exception):
    """Why rows cannot be made static; `node` is the one that stands in the way."""

    def __init__(self, node: gs.Node, why: str) -> None:
        super().__init__(why)
        self.node = node


class OpenShapeError(NotStaticError):
    """The same where a shape that is not known is the reason: pinning the model's open inputs may help."""


@dataclass(eq=False)
class Space:
    """A set of rows that several tensors share. Two spaces are the same only if they are one object, or both full."""

    size: int
    """Rows that there could be."""
    valid: gs.Tensor | None = None
    """bool [size], which of them are real; None: all, the space is full."""
    prefix: bool = False
    """Whether the real rows come first, in order, so that a row's place is its number."""
    key: gs.Tensor | None = None
    """[size]; if given, the real rows count in the order of falling keys and not in that of their places."""
    most: int | None = None
    """Real rows that there can be, if that is less than `size`."""
    inside: "frozenset[Space]" = field(default_factory=frozenset)
    """Spaces without whose rows this one has none."""

    @property
    def full(self) -> bool:
        """Whether every row is real."""
        return self.valid is None

    def derived(self) -> "frozenset[Space]":
        """`inside` of a space whose rows are chosen from this one's."""
        return self.inside | {self}


def full_space(size: int) -> Space:
    """The space of an ordinary dimension."""
    return Space(size, prefix=True)


def same(a: Space, b: Space) -> bool:
    """Whether rows of the two belong together one by one."""
    return a is b or (a.full and b.full and a.size == b.size)


@dataclass(frozen=True)
class Index:
    """What the integers of a tensor count: places in other spaces, and not necessarily numbers of rows."""

    components: tuple[Space, ...]
    """One space a column; one for all integers where `axis` is None."""
    axis: int | None = None
    """Axis of the columns."""
    grid: bool = False
    """Whether the rows are all the places of the components, in order: the row p of the tensor is the place p."""


@dataclass(frozen=True)
class Rows:
    """A padded tensor."""

    tensor: gs.Tensor
    """Of static shape."""
    axis: int
    """Along which the rows lie."""
    space: Space
    index: Index | None = None

    @property
    def shape(self) -> tuple[int, ...]:
        """With the padded number of rows."""
        return tuple(self.tensor.shape)

    @property
    def dtype(self) -> np.dtype:
        """NumPy's."""
        dtype: np.dtype = np.dtype(self.tensor.dtype)
        return dtype

    def along(self) -> list[int]:
        """Shape that a tensor [rows] needs to be broadcast against this one."""
        return [self.space.size if position == self.axis else 1 for position in range(len(self.shape))]
