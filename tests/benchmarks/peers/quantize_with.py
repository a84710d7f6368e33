"""Quantizes one model with one tool, as its documentation says; runs in that tool's own environment.

``python quantize_with.py TOOL MODEL.onnx CALIBRATION.npz OUT``. Needs numpy and the tool. The last line of its output
is a JSON object: the file, the seconds that quantizing took (imports left out) and the peak memory of the process.
"""

import json
import os
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np

Feeds = list[dict[str, np.ndarray]]


def nncf_quantize(model: Path, feeds: Feeds, out: Path) -> Path:
    """`nncf.quantize` with its defaults; for a transformer its documentation asks to say so."""
    import nncf
    import openvino

    started()
    kind = nncf.ModelType.TRANSFORMER if len(feeds[0]) > 1 else None
    read = openvino.Core().read_model(model)
    quantized = nncf.quantize(read, nncf.Dataset(feeds), model_type=kind)
    openvino.save_model(quantized, out / "model.xml")
    return out / "model.xml"


def nncf_accuracy_control(model: Path, feeds: Feeds, out: Path) -> Path:
    """`nncf.quantize_with_accuracy_control`: SQNR in dB over 32 of the samples may not fall below that of 35 dB."""
    import nncf
    import openvino

    started()
    read = openvino.Core().read_model(model)
    exact = openvino.Core().compile_model(read, "CPU")
    wanted = [np.array(exact(feed)[0]) for feed in feeds]
    pairs = list(zip(feeds, wanted, strict=True))

    def validate(compiled, data) -> float:
        found = [(np.asarray(compiled(feed)[0]), expected) for feed, expected in data]
        noise = sum(float(np.square(one - other).sum()) for one, other in found)
        return 1 - noise / sum(float(np.square(other).sum()) for _, other in found)

    quantized = nncf.quantize_with_accuracy_control(
        read,
        nncf.Dataset(feeds),
        nncf.Dataset(pairs[:32]),
        validation_fn=validate,
        max_drop=10 ** (-35 / 10),
    )
    openvino.save_model(quantized, out / "model.xml")
    return out / "model.xml"


def onnxruntime_static(model: Path, feeds: Feeds, out: Path) -> Path:
    """`quantize_static` with its defaults, after the pre-processing that its documentation asks for."""
    from onnxruntime.quantization import CalibrationDataReader, quantize_static
    from onnxruntime.quantization.shape_inference import quant_pre_process

    class Reader(CalibrationDataReader):
        def __init__(self) -> None:
            self.left: Iterator[dict[str, np.ndarray]] = iter(feeds)

        def get_next(self) -> dict[str, np.ndarray] | None:
            return next(self.left, None)

    started()
    prepared = out / "prepared.onnx"
    quant_pre_process(str(model), str(prepared))
    quantize_static(str(prepared), str(out / "model.onnx"), Reader())
    prepared.unlink()
    return out / "model.onnx"


def neural_compressor(model: Path, feeds: Feeds, out: Path) -> Path:
    """`quantization.fit` with its defaults, on all samples."""
    from neural_compressor import PostTrainingQuantConfig, quantization

    class Loader:
        batch_size = 1

        def __iter__(self) -> Iterator[tuple[object, int]]:
            for feed in feeds:
                yield (feed if len(feed) > 1 else next(iter(feed.values()))), 0

    started()
    config = PostTrainingQuantConfig(approach="static", calibration_sampling_size=[len(feeds)])
    quantized = quantization.fit(str(model), config, calib_dataloader=Loader())
    if quantized is None:
        raise RuntimeError("quantization.fit gave no model")
    quantized.save(str(out / "model.onnx"))
    return out / "model.onnx"


def olive(model: Path, feeds: Feeds, out: Path) -> Path:
    """``olive auto-opt --precision int8``: the tool chooses the passes; it takes no calibration data here."""
    import subprocess

    started()
    command = [str(Path(sys.executable).with_name("olive")), "auto-opt", "-m", str(model), "--precision", "int8"]
    command += ["--provider", "CPUExecutionProvider", "--device", "cpu", "-o", str(out), "--disable_telemetry"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    (out / "olive.log").write_text(done.stdout + done.stderr)
    found = sorted(out.rglob("*.onnx"))
    if done.returncode or not found:
        raise RuntimeError(" ".join((done.stderr or done.stdout).strip().split())[-300:] or "no model came out")
    return found[0]


TOOLS: dict[str, Callable[[Path, Feeds, Path], Path]] = {
    "nncf": nncf_quantize,
    "nncf-accuracy-control": nncf_accuracy_control,
    "onnxruntime": onnxruntime_static,
    "neural-compressor": neural_compressor,
    "olive": olive,
}
_started = time.perf_counter()


def started() -> None:
    """The tool is imported; from here on it is timed."""
    global _started
    _started = time.perf_counter()


def peak_bytes() -> int:
    """Peak resident memory of this process, or of the largest that it started."""
    import resource

    own = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM:"))
    return max(int(own.split()[1]), resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss) * 1024


def main() -> None:
    """Quantizes and tells."""
    tool, model, calibration, out = sys.argv[1], *map(Path, sys.argv[2:])
    out.mkdir(parents=True, exist_ok=True)
    with np.load(calibration, allow_pickle=False) as arrays:
        held = {name: arrays[name] for name in arrays.files}
    count = len(next(iter(held.values())))
    feeds = [{name: value[number : number + 1] for name, value in held.items()} for number in range(count)]
    used = sum(os.times()[:4])
    made = TOOLS[tool](model, feeds, out)
    seconds = time.perf_counter() - _started
    processor = sum(os.times()[:4]) - used
    facts = {"file": str(made), "seconds": seconds, "processor_seconds": processor, "peak_bytes": peak_bytes()}
    print(json.dumps(facts))


if __name__ == "__main__":
    main()
