"""A region of an ONNX graph in FP16, as strongly typed TensorRT wants it: half weights, casts at the border only.

The converters at hand block nodes one by one and cast around each, so that every value of a blocked tail is still
rounded to FP16 on its way.
"""

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from components.core.quantizable import float_tensors

LARGEST = 65504.0
"""Largest finite FP16 number."""
MARGIN = 2.0
"""How much larger than on the images at hand a value may get."""
CAST_PREFIX = "half_border_"
"""Names of the casts at a border begin with it."""
_FP32_INPUTS = {"Resize": (1, 2)}
"""Inputs that the operator wants in FP32 whatever its data is: roi and scales."""


def beyond_half(graph: Any, largest: Mapping[str, float]) -> set[str]:
    """Names of the nodes that read or write values near or beyond FP16's largest.

    Args:
        graph: with named nodes.
        largest: of each tensor (`largest_values`); tensors without an entry are not looked at.
    """
    beyond = {name for name, value in largest.items() if value * MARGIN > LARGEST}
    return {node.name for node in graph.node if beyond.intersection((*node.input, *node.output))}


def weights_beyond_half(graph: Any) -> set[str]:
    """Names of the nodes with a weight that FP16 cannot hold."""
    from onnx import TensorProto, numpy_helper

    large = {
        initializer.name
        for initializer in graph.initializer
        if initializer.data_type == TensorProto.FLOAT
        and len(initializer.dims) > 1
        and np.abs(numpy_helper.to_array(initializer)).max(initial=0) > LARGEST
    }
    return {node.name for node in graph.node if large & set(node.input)}


class HalfRegion:
    """The nodes that become FP16, and the casts that their neighbours need.

    Args:
        model: with named nodes; changed in place.
        nodes: of its graph.
    """

    def __init__(self, model: Any, nodes: Iterable[Any]) -> None:
        self.graph = graph = model.graph
        self.names = {node.name for node in nodes}
        self.floats = float_tensors(model)
        self.inside = {tensor for node in graph.node if node.name in self.names for tensor in node.output}
        self.initializers = {initializer.name: initializer for initializer in graph.initializer}
        self.result: list[Any] = []
        self.made: dict[tuple[str, int], str] = {}

    def convert(self) -> None:
        """Makes them FP16: half weights, casts at the border only."""
        from onnx import TensorProto

        for node in self.graph.node:
            half = node.name in self.names
            for index, tensor in enumerate(node.input):
                if not tensor or tensor not in self.floats:
                    continue
                wants_half = half and index not in _FP32_INPUTS.get(node.op_type, ())
                if wants_half and tensor not in self.inside:
                    node.input[index] = self._as_half(tensor)
                elif not wants_half and tensor in self.inside:
                    node.input[index] = self._cast(tensor, TensorProto.FLOAT)
            self.result.append(node)
        for output in self.graph.output:
            if output.name in self.inside:
                self._restore(output.name)
        del self.graph.node[:]
        self.graph.node.extend(self.result)
        self._drop_unused()

    def _as_half(self, tensor: str) -> str:
        from onnx import TensorProto, numpy_helper

        initializer = self.initializers.get(tensor)
        if initializer is None:
            return self._cast(tensor, TensorProto.FLOAT16)
        key = (tensor, TensorProto.FLOAT16)
        if key not in self.made:
            self.made[key] = f"{tensor}_half"
            value = numpy_helper.to_array(initializer).clip(-LARGEST, LARGEST).astype(np.float16)
            self.graph.initializer.append(numpy_helper.from_array(value, self.made[key]))
        return self.made[key]

    def _cast(self, tensor: str, kind: int) -> str:
        from onnx import helper

        key = (tensor, kind)
        if key not in self.made:
            self.made[key] = f"{tensor}_as_{kind}"
            name = f"{CAST_PREFIX}{len(self.made)}"
            self.result.append(helper.make_node("Cast", [tensor], [self.made[key]], name=name, to=kind))
        return self.made[key]

    def _restore(self, output: str) -> None:
        """Renames an inner tensor that is a graph output, and casts it back under its own name."""
        from onnx import TensorProto, helper

        renamed = f"{output}_in_half"
        for node in self.result:
            for names in (node.input, node.output):
                for index, name in enumerate(names):
                    if name == output:
                        names[index] = renamed
        cast = helper.make_node("Cast", [renamed], [output], name=f"{CAST_PREFIX}{output}", to=TensorProto.FLOAT)
        self.result.append(cast)

    def _drop_unused(self) -> None:
        used = {tensor for node in self.graph.node for tensor in node.input}
        kept = [initializer for initializer in self.graph.initializer if initializer.name in used]
        del self.graph.initializer[:]
        self.graph.initializer.extend(kept)
