"""INT8 for OpenVINO: NNCF's range estimators tried on the heads, layers ranked, the IR written."""

import time
from collections.abc import Collection
from pathlib import Path
from typing import Any

from components.core.runtimes.openvino_core import shared_core
from components.core.stepping import progress
from components.int8.calibration import CalibrationSet
from components.int8.openvino_nncf import CALIBRATORS, is_transformer, quantize_nncf, tail_operations
from components.int8.openvino_patches import find_patches, restore
from components.int8.openvino_switch import OpenVinoProbe, OpenVinoSwitch
from components.int8.sensitivity import Blame, rank
from components.int8.sqnr import sqnr_db


class OpenVinoBackend:
    """One FP32 ONNX file and its INT8 forms for OpenVINO's CPU plugin.

    Args:
        file: FP32 ONNX file.
        calibration: the images.
        symmetric: NNCF's preset PERFORMANCE, instead of MIXED.
    """

    suffix = ".xml"

    def __init__(self, file: Path, calibration: CalibrationSet, *, symmetric: bool = False) -> None:
        self._calibration = calibration
        self._symmetric = symmetric
        self._model = shared_core().read_model(file)
        self._transformer = is_transformer(self._model)
        self._probe = OpenVinoProbe(self._model, calibration.held_out or calibration.batches[-1:])
        self._quantized: Any = None

    def calibrate(self, seconds: float) -> dict[str, Any]:
        """Tries the range estimators until the time is over and keeps the one whose heads are nearest to FP32."""
        started = time.monotonic()
        longest = 0.0
        tried: dict[str, float] = {}
        left_out: list[str] = []
        best, chosen = float("-inf"), ""
        ways = [(name, True) for name in CALIBRATORS]
        if self._transformer:
            ways.insert(1, (CALIBRATORS[0], False))
        for calibrator, smooth in ways:
            name = calibrator if smooth or not self._transformer else f"{calibrator} without SmoothQuant"
            # A try cannot be cut short, so none begins that would probably end too late.
            if tried and time.monotonic() - started + longest > seconds:
                left_out.append(name)
                continue
            progress(f"calibrating openvino ({name}) on {len(self._calibration.names)} images")
            begun = time.monotonic()
            quantized = quantize_nncf(
                self._model,
                self._calibration.batches,
                calibrator,
                transformer=self._transformer,
                smooth=smooth,
                symmetric=self._symmetric,
            )
            tried[name] = sqnr_db(self._probe.exact, self._probe.outputs(quantized))
            longest = max(longest, time.monotonic() - begun)
            if tried[name] > best or self._quantized is None:
                best, chosen, self._quantized = tried[name], name, quantized
        return {
            "tried": {name: round(value, 2) for name, value in tried.items()},
            "not_tried_for_time": left_out,
            "chosen": chosen,
            "bias_correction": "NNCF's fast bias correction",
            "smooth_quant": self._transformer and "without SmoothQuant" not in chosen,
            "sqnr_db": round(best, 2),
        }

    def rank(self, seconds: float) -> list[Blame]:
        """The quantized operations, the most harmful first."""
        switch = OpenVinoSwitch(self._model, self._quantized, self._probe)
        return rank(
            switch,
            self._probe.exact,
            seconds,
            lambda done, total: progress("ranking the layers of openvino", done, total),
        )

    def write(self, out: Path, restored: Collection[str] = ()) -> dict[str, Any]:
        """Writes the INT8 IR with these operations in floating point, and says what is in it."""
        import nncf
        import openvino

        preset = "performance" if self._symmetric else "mixed"
        copy = self._quantized.clone()
        if restored:
            restore(find_patches(self._model, copy), restored)
        out.parent.mkdir(parents=True, exist_ok=True)
        openvino.save_model(copy, out, compress_to_fp16=False)
        return {
            "placement": f"NNCF {nncf.__version__}, {preset} preset, fast bias correction",
            "quantizers": sum(operation.get_type_name() == "FakeQuantize" for operation in copy.get_ops()),
            "fp32_nodes": len(tail_operations(self._model)),
        }
