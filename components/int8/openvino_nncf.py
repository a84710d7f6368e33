"""Quantizes for OpenVINO's CPU plugin with NNCF, which places the quantizers that this plugin fuses."""

import contextlib
import io
import logging
from collections.abc import Iterator, Sequence
from typing import Any

from components.core.feeds import Batch
from components.core.runtimes.openvino_core import feed_of, sharing_core

_WEIGHTED = ("Convolution", "GroupConvolution", "MatMul", "ConvolutionBackpropData", "GroupConvolutionBackpropData")
_GATES = ("ROIAlign", "Gather", "GatherND", "GatherElements", "GridSample")


CALIBRATORS = ("default", "min-max", "mse", "percentile")
"""Range estimators of NNCF by hasten's names, in the order of trying; `default` is what NNCF takes for the target.
NNCF has no entropy calibration."""


def quantize_nncf(
    model: Any,
    batches: Sequence[Batch],
    calibrator: str = "default",
    *,
    transformer: bool = False,
    smooth: bool = True,
    symmetric: bool = False,
) -> Any:
    """An INT8 copy of an OpenVINO model: mixed preset, fast bias correction, the tail in FP32.

    Args:
        model: FP32 `openvino.Model`; stays as it is.
        batches: calibration inputs.
        calibrator: one of `CALIBRATORS`.
        transformer: place the quantizers as transformers need them.
        smooth: SmoothQuant, which NNCF offers for transformers only.
        symmetric: NNCF's preset PERFORMANCE, all activations symmetric, instead of MIXED.
    """
    with _quiet():
        import nncf
        from nncf.quantization.advanced_parameters import AdvancedQuantizationParameters, AdvancedSmoothQuantParameters

        advanced = AdvancedQuantizationParameters()
        ranges = _range_estimator(calibrator)
        if ranges is not None:
            advanced.activations_range_estimator_params = ranges
        if not smooth:
            advanced.smooth_quant_alphas = AdvancedSmoothQuantParameters(convolution=-1, matmul=-1)
        with sharing_core():
            return nncf.quantize(
                model.clone(),
                nncf.Dataset([feed_of(model, batch) for batch in batches]),
                preset=nncf.QuantizationPreset.PERFORMANCE if symmetric else nncf.QuantizationPreset.MIXED,
                subset_size=len(batches),
                model_type=nncf.ModelType.TRANSFORMER if transformer else None,
                ignored_scope=nncf.IgnoredScope(names=tail_operations(model), validate=False),
                advanced_parameters=advanced,
            )


def _range_estimator(calibrator: str) -> Any:
    from nncf.quantization.range_estimator import RangeEstimatorParametersSet

    return {
        "default": None,
        "min-max": RangeEstimatorParametersSet.MINMAX,
        "mse": RangeEstimatorParametersSet.HISTOGRAM,
        "percentile": RangeEstimatorParametersSet.MEAN_QUANTILE,
    }[calibrator]


def is_transformer(model: Any) -> bool:
    """Whether products of two activations are followed or led by a Softmax: attention."""
    products = 0
    softmax = False
    for operation in model.get_ordered_ops():
        kind = operation.get_type_name()
        products += kind == "MatMul" and not _has_constant_weights(operation)
        softmax |= kind == "Softmax"
        if kind == "ScaledDotProductAttention":
            return True
    return softmax and products >= 2


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
