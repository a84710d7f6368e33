"""A detector in FP16 for TensorRT: the learned part, without the tail and without what FP16 cannot hold."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from components.core.feeds import Batch
from components.core.half import CAST_PREFIX, HalfRegion, beyond_half, weights_beyond_half
from components.core.quantizable import learned_nodes, name_nodes
from components.core.value_ranges import largest_values

_KEEP_FP32 = ("GridSample", "RoiAlign")
"""Read at coordinates, of which FP16 holds only 11 bits."""
_SOURCES = ("Constant", "ConstantOfShape", "EyeLike", "Range", "Shape")
"""Their type is their own and not that of an input."""


def convert_to_half(model_path: Path, out: Path, batches: Sequence[Batch] = ()) -> dict[str, Any]:
    """Writes the FP16 form of an ONNX file; inputs and outputs keep their types.

    A layer with a weight that FP16 cannot hold stays in FP32, and so does every node that reads or writes a value that
    it could not hold with real inputs.

    Args:
        model_path: FP32 ONNX file.
        out: file to write.
        batches: real inputs; without any, only weights are looked at.

    Returns:
        Facts for the report: how many nodes compute in FP16 and in FP32, and the layers kept for their range.
    """
    import onnx

    model = onnx.load(model_path)
    name_nodes(model.graph)
    largest = largest_values(model, batches) if batches else {}
    too_large = weights_beyond_half(model.graph) | beyond_half(model.graph, largest)
    learned = learned_nodes(model.graph)
    chosen = [
        node
        for node in model.graph.node
        if node.name in learned and node.op_type not in (*_KEEP_FP32, *_SOURCES) and node.name not in too_large
    ]
    HalfRegion(model, chosen).convert()
    del model.graph.value_info[:]
    onnx.save(model, out)
    total = sum(not node.name.startswith(CAST_PREFIX) for node in model.graph.node)
    return {
        "fp16_nodes": len(chosen),
        "fp32_nodes": total - len(chosen),
        "kept_for_range": sorted(too_large),
        "range_images": len(batches),
        "largest_value": max(largest.values(), default=None),
    }
