"""FP16 in the ONNX graph itself, as strongly typed TensorRT wants it: half weights, casts at the border, FP32 tail."""

from pathlib import Path
from typing import Any

from components.core.quantizable import name_nodes, tail_nodes


def convert_to_half(model_path: Path, out: Path) -> dict[str, Any]:
    """Writes the FP16 form of an ONNX file; inputs and outputs keep their types.

    Returns:
        Facts for the report: how many nodes compute in FP16 and in FP32.
    """
    import onnx
    from onnxruntime.transformers.float16 import convert_float_to_float16

    model = onnx.load(model_path)
    name_nodes(model.graph)
    tail = tail_nodes(model.graph)
    total = len(model.graph.node)
    half = convert_float_to_float16(model, keep_io_types=True, node_block_list=tail, disable_shape_infer=False)
    onnx.save(half, out)
    return {"fp16_nodes": total - len(tail), "fp32_nodes": len(tail)}
