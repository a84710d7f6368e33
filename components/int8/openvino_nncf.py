"""Quantizes for OpenVINO's CPU plugin with NNCF, which places the quantizers that this plugin fuses."""

import contextlib
import io
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from components.core.stepping import progress

_WEIGHTED = ("Convolution", "GroupConvolution", "MatMul", "ConvolutionBackpropData", "GroupConvolutionBackpropData")
_GATES = ("ROIAlign", "Gather", "GatherND", "GatherElements", "GridSample")


def quantize_openvino(model_path: Path, out: Path, batches: list[npt.NDArray[np.float32]]) -> dict[str, Any]:
    """Writes the INT8 form of a model as OpenVINO IR.

    Args:
        model_path: FP32 ONNX file.
        out: `.xml` file to write; its weights go beside it, as `.bin`.
        batches: calibration inputs ``[N, 3, H, W]``.

    Returns:
        Facts for the report: quantizers, nodes left in FP32.
    """
    import openvino

    with _quiet():
        import nncf

        model = openvino.Core().read_model(model_path)
        tail = tail_operations(model)
        progress(f"calibrating openvino on {len(batches)} images")
        quantized = nncf.quantize(
            model,
            nncf.Dataset(batches),
            preset=nncf.QuantizationPreset.MIXED,
            subset_size=len(batches),
            ignored_scope=nncf.IgnoredScope(names=tail, validate=False),
        )
    openvino.save_model(quantized, out, compress_to_fp16=False)
    quantizers = sum(operation.get_type_name() == "FakeQuantize" for operation in quantized.get_ops())
    return {
        "placement": f"NNCF {nncf.__version__}, mixed preset, fast bias correction",
        "quantizers": quantizers,
        "fp32_nodes": len(tail),
    }


def tail_operations(model: Any) -> list[str]:
    """Friendly names of the operations that stay in FP32; the rule is that of `components.core.quantizable`."""
    operations = model.get_ordered_ops()
    waiting = [op for op in operations if op.get_type_name() in _WEIGHTED and _has_constant_weights(op)]
    seen: set[str] = set()
    while waiting:
        operation = waiting.pop()
        name = operation.get_friendly_name()
        if name in seen:
            continue
        seen.add(name)
        inputs = operation.inputs()[:1] if operation.get_type_name() in _GATES else operation.inputs()
        waiting.extend(port.get_source_output().get_node() for port in inputs)
    skipped = ("Constant", "Parameter", "Result")
    names = [op.get_friendly_name() for op in operations if op.get_type_name() not in skipped]
    return [name for name in names if name not in seen]


def _has_constant_weights(operation: Any) -> bool:
    """Whether the second input is computed from constants alone."""
    waiting = [operation.input_value(1).get_node()]
    while waiting:
        node = waiting.pop()
        if node.get_type_name() == "Parameter":
            return False
        if len(waiting) > 100:
            return False
        waiting.extend(port.get_source_output().get_node() for port in node.inputs())
    return True


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """NNCF logs to the console and draws progress bars of its own."""
    level = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            yield
    finally:
        logging.disable(level)
