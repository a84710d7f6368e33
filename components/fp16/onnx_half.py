"""FP16 in the ONNX graph itself, as strongly typed TensorRT wants it: half weights, casts at the border, FP32 tail.

The converters at hand block nodes one by one and cast around each, so that every value of a blocked tail is still
rounded to FP16 on its way. Here the learned part is one region with casts at its border only.
"""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from components.core.quantizable import float_tensors, learned_nodes, name_nodes
from components.core.value_ranges import largest_values

LARGEST = 65504.0
"""Largest finite FP16 number."""
MARGIN = 2.0
"""How much larger than on the images at hand a value may get."""
_KEEP_FP32 = ("GridSample", "RoiAlign")
"""Read at coordinates, of which FP16 holds only 11 bits."""
_SOURCES = ("Constant", "ConstantOfShape", "EyeLike", "Range", "Shape")
"""Their type is their own and not that of an input."""
_CAST_PREFIX = "half_border_"
_FP32_INPUTS = {"Resize": (1, 2)}
"""Inputs that the operator wants in FP32 whatever its data is: roi and scales."""


def convert_to_half(model_path: Path, out: Path, batches: Sequence[npt.NDArray[np.float32]] = ()) -> dict[str, Any]:
    """Writes the FP16 form of an ONNX file; inputs and outputs keep their types.

    A layer with a weight that FP16 cannot hold stays in FP32, and so does every node that reads or writes a value that
    it could not hold with real inputs.

    Args:
        model_path: FP32 ONNX file.
        out: file to write.
        batches: real inputs ``[N, 3, H, W]``; without any, only weights are looked at.

    Returns:
        Facts for the report: how many nodes compute in FP16 and in FP32, and the layers kept for their range.
    """
    import onnx

    model = onnx.load(model_path)
    name_nodes(model.graph)
    largest = largest_values(model, batches) if batches else {}
    too_large = _nodes_out_of_range(model.graph) | _islands(model.graph, largest)
    learned = learned_nodes(model.graph)
    chosen = [
        node
        for node in model.graph.node
        if node.name in learned and node.op_type not in (*_KEEP_FP32, *_SOURCES) and node.name not in too_large
    ]
    _Region(model, chosen).convert()
    del model.graph.value_info[:]
    onnx.save(model, out)
    total = sum(not node.name.startswith(_CAST_PREFIX) for node in model.graph.node)
    return {
        "fp16_nodes": len(chosen),
        "fp32_nodes": total - len(chosen),
        "kept_for_range": sorted(too_large),
        "range_images": len(batches),
        "largest_value": max(largest.values(), default=None),
    }


def _islands(graph: Any, largest: Mapping[str, float]) -> set[str]:
    """Nodes that read or write values near or beyond FP16's largest."""
    beyond = {name for name, value in largest.items() if value * MARGIN > LARGEST}
    return {node.name for node in graph.node if beyond.intersection((*node.input, *node.output))}


def _nodes_out_of_range(graph: Any) -> set[str]:
    from onnx import TensorProto, numpy_helper

    large = {
        initializer.name
        for initializer in graph.initializer
        if initializer.data_type == TensorProto.FLOAT
        and len(initializer.dims) > 1
        and np.abs(numpy_helper.to_array(initializer)).max(initial=0) > LARGEST
    }
    return {node.name for node in graph.node if large & set(node.input)}


class _Region:
    """The nodes that become FP16, and the casts that their neighbours need."""

    def __init__(self, model: Any, nodes: Iterable[Any]) -> None:
        self.graph = graph = model.graph
        self.names = {node.name for node in nodes}
        self.floats = float_tensors(model)
        self.inside = {tensor for node in graph.node if node.name in self.names for tensor in node.output}
        self.initializers = {initializer.name: initializer for initializer in graph.initializer}
        self.result: list[Any] = []
        self.made: dict[tuple[str, int], str] = {}

    def convert(self) -> None:
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
            name = f"{_CAST_PREFIX}{len(self.made)}"
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
        cast = helper.make_node("Cast", [renamed], [output], name=f"{_CAST_PREFIX}{output}", to=TensorProto.FLOAT)
        self.result.append(cast)

    def _drop_unused(self) -> None:
        used = {tensor for node in self.graph.node for tensor in node.input}
        kept = [initializer for initializer in self.graph.initializer if initializer.name in used]
        del self.graph.initializer[:]
        self.graph.initializer.extend(kept)
