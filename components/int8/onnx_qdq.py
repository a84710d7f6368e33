"""Quantizes an ONNX model by inserting QuantizeLinear/DequantizeLinear pairs where the target wants them.

ONNX Runtime's CPU kernels are fastest with asymmetric uint8 activations and pairs around everything between two
convolutions; TensorRT's form is in `symmetric_qdq`. One placement is never used for the other: each is slow, or does
not parse, on the other side.
"""

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx

from components.core.contracts.job import Runtime
from components.core.feeds import Batch
from components.core.onnx_files import load_onnx, save_onnx
from components.core.quantizable import WEIGHTED, float_tensors, learned_nodes, name_nodes, tail_nodes, weighted_nodes
from components.int8.histograms import collect_histograms
from components.int8.range_rules import Range, percentile
from components.int8.symmetric_qdq import quantize_symmetric, symmetric_tensors

OPERATORS = (*WEIGHTED, "Add", "Relu", "Clip", "MaxPool", "Resize", "Concat")
"""Operators that ONNX Runtime's CPU kernels run in uint8, or fuse."""


def asymmetric_tensors(model: onnx.ModelProto) -> list[str]:
    """Activations whose ranges `quantize_asymmetric` needs."""
    floats, learned = float_tensors(model), learned_nodes(model.graph)
    constants = {initializer.name for initializer in model.graph.initializer}
    found: dict[str, None] = {}
    for node in model.graph.node:
        if node.op_type in OPERATORS and node.name in learned:
            found |= dict.fromkeys(name for name in (*node.input, *node.output) if name in floats - constants)
    return list(found)


def quantize_asymmetric(
    model: onnx.ModelProto, ranges: Mapping[str, Range], restored: Collection[str] = (), *, vnni: bool
) -> tuple[onnx.ModelProto, list[str]]:
    """A copy with pairs as ONNX Runtime's CPU kernels want them.

    Args:
        model: FP32, with named nodes.
        ranges: of the activations.
        restored: nodes that stay in floating point.
        vnni: whether the CPU multiplies INT8 without the 16-bit overflow of older ones (AVX-512 VNNI, AVX-VNNI, AMX).

    Returns:
        The quantized model and the names of the nodes that compute in INT8.
    """
    from onnxruntime.quantization import CalibrationMethod, QDQQuantizer, QuantType
    from onnxruntime.quantization.calibrate import TensorsData

    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    left = [*tail_nodes(copy.graph), *restored]
    bounds = {name: (np.float32(low), np.float32(high)) for name, (low, high) in ranges.items()}
    quantizer = QDQQuantizer(
        copy,
        True,  # per channel
        not vnni,  # 7-bit weights where the CPU's INT8 products overflow
        QuantType.QInt8,
        QuantType.QUInt8,
        TensorsData(CalibrationMethod.MinMax, bounds),
        [],
        left,
        list(OPERATORS),
        # A Relu that is taken for the uint8 range would be missing where its neighbour is restored; ONNX Runtime
        # fuses it when it loads the file.
        {"ActivationSymmetric": False, "WeightSymmetric": True, "QDQKeepRemovableActivations": True},
    )
    quantizer.quantize_model()
    quantizer.model.topological_sort()
    quantized: onnx.ModelProto = quantizer.model.model
    kept = set(left)
    names = [node.name for node in model.graph.node if node.op_type in OPERATORS and node.name not in kept]
    return quantized, names


def quantize_onnx(
    model_path: Path, out: Path, runtime: Runtime, batches: Sequence[Batch], *, vnni: bool
) -> dict[str, Any]:
    """Writes the INT8 form of a model with one calibrator and nothing tried; `run_int8` does more.

    Args:
        model_path: FP32 ONNX file.
        out: file to write.
        runtime: whose placement is wanted.
        batches: calibration inputs.
        vnni: see `quantize_asymmetric`.

    Returns:
        Facts for the report.
    """
    model = load_onnx(model_path)
    name_nodes(model.graph)
    symmetric = runtime in (Runtime.TENSORRT, Runtime.TENSORRT_RTX)
    tensors = symmetric_tensors(model) if symmetric else asymmetric_tensors(model)
    ranges = {name: percentile(seen) for name, seen in collect_histograms(model, tensors, batches).items()}
    if symmetric:
        quantized, _ = quantize_symmetric(model, ranges, group_depthwise=runtime is Runtime.TENSORRT_RTX)
    else:
        quantized, _ = quantize_asymmetric(model, ranges, vnni=vnni)
    save_onnx(quantized, out)
    return {"quantized_layers": len(weighted_nodes(model.graph)), "fp32_nodes": len(tail_nodes(model.graph))}
