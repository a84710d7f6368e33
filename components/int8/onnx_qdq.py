"""Quantizes an ONNX model by inserting QuantizeLinear/DequantizeLinear pairs where the target wants them.

TensorRT 11 takes precision from the graph alone and accepts symmetric pairs only, with biases left in FP32. ONNX
Runtime's CPU kernels are fastest with asymmetric uint8 activations and pairs around everything between two
convolutions. One placement is never used for the other: each is slow, or does not parse, on the other side.
"""

import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from components.core.contracts.job import Runtime
from components.core.quantizable import name_nodes, tail_nodes, weighted_nodes
from components.core.stepping import progress


class _Reader:
    """Feeds the calibration set to ONNX Runtime's calibrator, with progress."""

    def __init__(self, input_name: str, batches: list[npt.NDArray[np.float32]], what: str) -> None:
        self._feeds = self._read(input_name, batches, what)

    @staticmethod
    def _read(name: str, batches: list[npt.NDArray[np.float32]], what: str) -> Iterator[dict[str, Any]]:
        for done, batch in enumerate(batches):
            progress(f"calibrating {what}", done, len(batches))
            yield {name: batch}

    def get_next(self) -> dict[str, Any] | None:
        """The next feed, or None after the last: the calibrator's protocol."""
        return next(self._feeds, None)


def quantize_onnx(
    model_path: Path, out: Path, runtime: Runtime, batches: list[npt.NDArray[np.float32]], *, vnni: bool
) -> dict[str, Any]:
    """Writes the INT8 form of a model.

    Args:
        model_path: FP32 ONNX file.
        out: file to write.
        runtime: whose placement is wanted.
        batches: calibration inputs ``[N, 3, H, W]``.
        vnni: whether the CPU multiplies INT8 without the 16-bit overflow of older ones (AVX-512 VNNI, AVX-VNNI, AMX).

    Returns:
        Facts for the report: placement, quantized layers.
    """
    import onnx
    from onnxruntime.quantization import (
        CalibrationDataReader,
        CalibrationMethod,
        QuantFormat,
        QuantType,
        quantize_static,
    )

    model = onnx.load(model_path)
    name_nodes(model.graph)
    layers = weighted_nodes(model.graph)
    tail = tail_nodes(model.graph)
    symmetric = runtime in (Runtime.TENSORRT, Runtime.TENSORRT_RTX)
    operators = ["Conv", "ConvTranspose", "Gemm", "MatMul"]
    if not symmetric:
        operators += ["Add", "Relu", "Clip", "MaxPool", "Resize", "Concat"]
    CalibrationDataReader.register(_Reader)
    reader = _Reader(model.graph.input[0].name, batches, str(runtime))
    with tempfile.TemporaryDirectory() as folder:
        named = Path(folder) / "named.onnx"
        onnx.save(model, named)
        quantize_static(
            named,
            out,
            reader,
            quant_format=QuantFormat.QDQ,
            op_types_to_quantize=operators,
            nodes_to_exclude=tail,
            per_channel=True,
            reduce_range=not symmetric and not vnni,
            activation_type=QuantType.QInt8 if symmetric else QuantType.QUInt8,
            weight_type=QuantType.QInt8,
            calibrate_method=CalibrationMethod.MinMax,
            extra_options={
                "ActivationSymmetric": symmetric,
                "WeightSymmetric": True,
                "QuantizeBias": not symmetric,
                "DedicatedQDQPair": symmetric,
            },
        )
    return {
        "placement": "symmetric, per channel, FP32 biases" if symmetric else "asymmetric activations, per channel",
        "quantized_layers": len(layers),
        "fp32_nodes": len(tail),
    }
