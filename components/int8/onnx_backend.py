"""INT8 for ONNX Runtime and TensorRT: calibrators tried on the heads, layers ranked, the file written."""

import time
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx

from components.core.contracts.job import Runtime
from components.core.feeds import feed
from components.core.half import HalfRegion, beyond_half, weights_beyond_half
from components.core.onnx_files import load_onnx, save_onnx
from components.core.quantizable import name_nodes, tail_nodes, weighted_nodes
from components.core.stepping import progress
from components.core.value_ranges import largest_values
from components.int8.bias_correction import channel_shifts, with_corrected_biases
from components.int8.calibration import CalibrationSet
from components.int8.heads import HeadProbe
from components.int8.histograms import collect_histograms
from components.int8.onnx_qdq import asymmetric_tensors, quantize_asymmetric
from components.int8.onnx_switch import OnnxSwitch
from components.int8.range_rules import RULES, Range
from components.int8.sensitivity import Blame, rank
from components.int8.sqnr import sqnr_db
from components.int8.symmetric_qdq import quantize_symmetric, symmetric_tensors

_ENGINES = (Runtime.TENSORRT, Runtime.TENSORRT_RTX)
_CORRECTION_IMAGES = 16
_RANGE_IMAGES = 16


class OnnxBackend:
    """One FP32 ONNX file and its INT8 forms for one runtime.

    Args:
        file: FP32 ONNX file.
        runtime: whose placement is wanted.
        calibration: the images.
        vnni: see `quantize_asymmetric`; TensorRT's form does not depend on it.
        symmetric: TensorRT's placement, or ONNX Runtime's; default: the runtime's own.
    """

    suffix = ".onnx"

    def __init__(
        self,
        file: Path,
        runtime: Runtime,
        calibration: CalibrationSet,
        *,
        vnni: bool,
        symmetric: bool | None = None,
    ) -> None:
        self.runtime = runtime
        self.symmetric = runtime in _ENGINES if symmetric is None else symmetric
        self._vnni = vnni
        self._calibration = calibration
        self._model = load_onnx(file)
        name_nodes(self._model.graph)
        self._probe = HeadProbe(self._model, calibration.held_out or calibration.batches[-1:])
        self._shifts: dict[str, npt.NDArray[np.float64]] = {}
        """What the biases are corrected by."""
        self._ranges: dict[str, Range] = {}
        self._largest: dict[str, float] | None = None
        self.units: list[str] = []

    def calibrate(self, seconds: float) -> dict[str, Any]:
        """Tries the calibrators until the time is over and keeps the one whose heads are nearest to FP32.

        Returns:
            For the card: what was tried, with its SQNR, what was chosen, and whether biases were corrected.
        """
        started = time.monotonic()
        tensors = symmetric_tensors(self._model) if self.symmetric else asymmetric_tensors(self._model)
        batches = self._calibration.batches
        histograms = collect_histograms(
            self._model,
            tensors,
            batches,
            lambda done: progress(f"calibrating {self.runtime}", done, len(batches)),
        )
        tried: dict[str, float] = {}
        left_out: list[str] = []
        best = float("-inf")
        for name, rule in RULES.items():
            if tried and time.monotonic() - started > seconds:
                left_out.append(name)
                continue
            progress(f"trying the calibrator {name} for {self.runtime}")
            ranges = {tensor: rule(histogram) for tensor, histogram in histograms.items()}
            tried[name] = self._sqnr(self._model, ranges)
            if tried[name] > best or not self._ranges:
                best, self._ranges, chosen = tried[name], ranges, name
        correction = "no time" if time.monotonic() - started > seconds else self._correct_biases(best)
        quantized, self.units = self._quantize(with_corrected_biases(self._model, self._shifts), self._ranges, ())
        return {
            "tried": {name: round(value, 2) for name, value in tried.items()},
            "not_tried_for_time": left_out,
            "chosen": chosen,
            "bias_correction": correction,
            "sqnr_db": round(max(best, self._sqnr_of(quantized)), 2),
        }

    def rank(self, seconds: float) -> list[Blame]:
        """The quantized nodes, the most harmful first."""
        quantized, units = self._quantize(self._model, self._ranges, ())
        switch = OnnxSwitch(self._model, quantized, units, self._probe, shared_pairs=not self.symmetric)
        return rank(switch, self._probe.exact, seconds, _ranking(self.runtime))

    def write(self, out: Path, restored: Collection[str] = ()) -> dict[str, Any]:
        """Writes the INT8 file with these nodes in floating point, and says what is in it."""
        shifts = {name: shift for name, shift in self._shifts.items() if name not in restored}
        source = with_corrected_biases(self._model, shifts)
        quantized, units = self._quantize(source, self._ranges, restored, final=True)
        half = self._in_half(quantized, restored) if self.runtime in _ENGINES and restored else []
        out.parent.mkdir(parents=True, exist_ok=True)
        save_onnx(quantized, out)
        return {
            "placement": "symmetric, per channel, FP32 biases, residual sums"
            if self.symmetric
            else "asymmetric activations, per channel",
            "quantized_layers": len(set(weighted_nodes(self._model.graph)) & set(units)),
            "layers": len(weighted_nodes(self._model.graph)),
            "fp32_nodes": len(tail_nodes(self._model.graph)),
            "fp16_layers": half,
        }

    def _in_half(self, quantized: onnx.ModelProto, restored: Collection[str]) -> list[str]:
        """Makes the restored layers FP16, in place, where it holds their values; TensorRT computes that fast."""
        if self._largest is None:
            batches = self._calibration.batches[:_RANGE_IMAGES]
            self._largest = largest_values(self._model, batches)
        layers = set(weighted_nodes(self._model.graph)) & set(restored)
        layers -= beyond_half(self._model.graph, self._largest) | weights_beyond_half(self._model.graph)
        HalfRegion(quantized, [node for node in quantized.graph.node if node.name in layers]).convert()
        del quantized.graph.value_info[:]
        return sorted(layers)

    def _quantize(
        self, model: onnx.ModelProto, ranges: dict[str, Range], restored: Collection[str], *, final: bool = False
    ) -> tuple[onnx.ModelProto, list[str]]:
        if self.symmetric:
            grouped = final and self.runtime is Runtime.TENSORRT_RTX
            return quantize_symmetric(model, ranges, restored, group_depthwise=grouped)
        return quantize_asymmetric(model, ranges, restored, vnni=self._vnni)

    def _sqnr(self, model: onnx.ModelProto, ranges: dict[str, Range]) -> float:
        return self._sqnr_of(self._quantize(model, ranges, ())[0])

    def _sqnr_of(self, quantized: onnx.ModelProto) -> float:
        return sqnr_db(self._probe.exact, self._probe.outputs(quantized))

    def _correct_biases(self, before: float) -> str:
        """Corrects the biases where the heads come nearer to FP32 by it."""
        progress(f"correcting biases for {self.runtime}")
        quantized, _ = self._quantize(self._model, self._ranges, ())
        feeds = [feed(batch, self._probe.inputs) for batch in self._calibration.batches[:_CORRECTION_IMAGES]]
        shifts = channel_shifts(self._model, quantized, feeds)
        if not shifts:
            return "no layer with a bias"
        corrected = with_corrected_biases(self._model, shifts)
        after = self._sqnr(corrected, self._ranges)
        if after <= before:
            return f"left out: {after:.2f} dB with it, {before:.2f} without"
        self._shifts = shifts
        return f"{len(shifts)} layers: {after:.2f} dB with it, {before:.2f} without"


def _ranking(runtime: Runtime) -> Callable[[int, int], None]:
    return lambda done, total: progress(f"ranking the layers of {runtime}", done, total)
