"""The placements that are tried for a runtime; which one is fast depends on the model, so the machine decides.

A network of depthwise convolutions loses in OpenVINO with NNCF's placement and wins with TensorRT's symmetric pairs;
one of wide convolutions is the other way round; a text encoder is fastest with dynamic quantization in ONNX Runtime.
"""

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from components.core.contracts.job import Runtime
from components.core.machine import cpu_flags
from components.core.precision import has_int8_dot_product
from components.int8.calibration import CalibrationSet
from components.int8.run import Backend
from components.int8.sensitivity import Blame


@dataclass(frozen=True)
class Form:
    """One placement for one runtime."""

    id: str
    runtime: Runtime
    said: str
    """What it is, for a person."""
    make: Callable[[Path, CalibrationSet], Backend]
    """From an FP32 ONNX file."""


def forms_for(runtime: Runtime, model: Path) -> Sequence[Form]:
    """Placements that are worth a try.

    Args:
        runtime: where the model shall run.
        model: FP32 ONNX file; dynamic quantization is for models without convolutions.
    """
    found = [form for form in _FORMS if form.runtime is runtime]
    return [form for form in found if "dynamic" not in form.id or _is_dense(model)]


class DynamicBackend:
    """Weights in INT8, activations by the range that each call has: ONNX Runtime's dynamic quantization."""

    suffix = ".onnx"

    def __init__(self, file: Path, calibration: CalibrationSet) -> None:
        self._file = file
        self._calibration = calibration

    def calibrate(self, seconds: float) -> dict[str, Any]:  # noqa: ARG002
        """Nothing: there are no ranges to find."""
        return {"chosen": "dynamic", "tried": {}, "not_tried_for_time": []}

    def rank(self, seconds: float) -> list[Blame]:  # noqa: ARG002
        """Nothing: layers are not ranked here."""
        return []

    def write(self, out: Path, restored: Collection[str] = ()) -> dict[str, Any]:
        """Writes the file."""
        from onnxruntime.quantization import QuantType, quantize_dynamic

        out.parent.mkdir(parents=True, exist_ok=True)
        quantize_dynamic(
            str(self._file),
            str(out),
            per_channel=True,
            reduce_range=not has_int8_dot_product(cpu_flags()),
            weight_type=QuantType.QInt8,
            nodes_to_exclude=list(restored) or None,
        )
        return {"placement": "dynamic ranges of activations, per channel"}


def _nncf(*, symmetric: bool) -> Callable[[Path, CalibrationSet], Backend]:
    def make(model: Path, calibration: CalibrationSet) -> Backend:
        from components.int8.openvino_backend import OpenVinoBackend

        return OpenVinoBackend(model, calibration, symmetric=symmetric)

    return make


def _pairs(runtime: Runtime, *, symmetric: bool) -> Callable[[Path, CalibrationSet], Backend]:
    def make(model: Path, calibration: CalibrationSet) -> Backend:
        from components.int8.onnx_backend import OnnxBackend

        vnni = has_int8_dot_product(cpu_flags())
        return OnnxBackend(model, runtime, calibration, vnni=vnni, symmetric=symmetric)

    return make


def _is_dense(model: Path) -> bool:
    from components.core.onnx_files import load_graph

    kinds = {node.op_type for node in load_graph(model).graph.node}
    return "Conv" not in kinds and bool(kinds & {"MatMul", "Gemm"})


_SYMMETRIC, _ASYMMETRIC = "symmetric Q/DQ pairs before layers", "asymmetric Q/DQ pairs around layers"
_FORMS = (
    Form("openvino-pairs-symmetric", Runtime.OPENVINO, _SYMMETRIC, _pairs(Runtime.OPENVINO, symmetric=True)),
    Form("openvino-pairs-asymmetric", Runtime.OPENVINO, _ASYMMETRIC, _pairs(Runtime.OPENVINO, symmetric=False)),
    Form("openvino-nncf-mixed", Runtime.OPENVINO, "NNCF, preset MIXED", _nncf(symmetric=False)),
    Form("openvino-nncf-performance", Runtime.OPENVINO, "NNCF, preset PERFORMANCE", _nncf(symmetric=True)),
    Form(
        "onnxruntime-pairs-asymmetric", Runtime.ONNXRUNTIME, _ASYMMETRIC, _pairs(Runtime.ONNXRUNTIME, symmetric=False)
    ),
    Form("onnxruntime-pairs-symmetric", Runtime.ONNXRUNTIME, _SYMMETRIC, _pairs(Runtime.ONNXRUNTIME, symmetric=True)),
    Form("onnxruntime-dynamic", Runtime.ONNXRUNTIME, "dynamic quantization", DynamicBackend),
    Form("tensorrt-pairs-symmetric", Runtime.TENSORRT, _SYMMETRIC, _pairs(Runtime.TENSORRT, symmetric=True)),
    Form(
        "tensorrt-rtx-pairs-symmetric", Runtime.TENSORRT_RTX, _SYMMETRIC, _pairs(Runtime.TENSORRT_RTX, symmetric=True)
    ),
)
