"""Takes the five torchvision detectors end to end: eager, ONNX, surgery, and an engine in FP32, FP16 and INT8.

``python tests/benchmarks/whole_models.py --weights FOLDER --data FOLDER [NAME...]`` prints a Markdown table. FOLDER of
the weights is what `stock_detectors.py` made; that of the data has ``train.json``, ``test.json`` (COCO) and
``images/``. ``--from stock`` starts from the untouched ONNX export instead of the static re-expression.

Detections are compared in ONNX Runtime with the eager model's, one by one: same label, IoU over 0.99, score within
1e-3. FP32 must match them all; what FP16 and INT8 cost in accuracy is in the column of AP50.
"""

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch

sys.path[:0] = [str(Path(__file__).parent), str(Path(__file__).parents[2])]

from stock_detectors import FACTORIES, IMAGE_SIZE, trained  # noqa: E402

from components.core.contracts.job import Metric, Runtime  # noqa: E402
from components.core.machine import cpu_model, usable_cores  # noqa: E402
from components.core.onnx_files import load_onnx, save_onnx  # noqa: E402
from components.core.tasks.detection import (  # noqa: E402
    Detections,
    DetectionSplit,
    evaluate,
    fit,
    in_batches,
    per_image,
    read_split,
    unfit,
)
from components.engine.build import BuildError, build_engine  # noqa: E402
from components.export.candidate_counts import first_images  # noqa: E402
from components.export.canonical import canonical  # noqa: E402
from components.export.onnx_export import StockDetector, export_onnx, quiet  # noqa: E402
from components.export.parity import compare, run_onnx  # noqa: E402
from components.fp16.onnx_half import convert_to_half  # noqa: E402
from components.int8.onnx_qdq import quantize_onnx  # noqa: E402
from components.surgery.operate import operate  # noqa: E402
from components.surgery.surgeries.row12_non_max_suppression import fixed_point_probe  # noqa: E402

TARGET = Runtime.TENSORRT_RTX
PRECISIONS = ("FP32", "FP16", "INT8")
MOST_SECONDS = 60.0
"""What one model may take, in one precision, from the eager model to the engine."""
_STAGES = ("export", "surgery", "convert", "engine")
_SHOWN = {"HALF": "FP16", "FLOAT": "FP32", "INT8": "INT8"}


class Subject:
    """One detector with the images it is judged on and what the eager model finds in them."""

    def __init__(self, name: str, weights: Path, data: Path, images: int, calibration: int, batch: int) -> None:
        train = read_split(data / "train.json", data / "images")
        self.name = name
        self.split: DetectionSplit = first_images(read_split(data / "test.json", data / "images"), images)
        self.model = trained(name, len(train.categories) + 1, weights)
        fitted = [fit(image.load(), *IMAGE_SIZE) for image in self.split.images]
        self.batches, self.scales = in_batches([one for one, _ in fitted], batch), [scale for _, scale in fitted]
        self.calibration = in_batches([fit(one.load(), *IMAGE_SIZE)[0] for one in train.images[:calibration]], batch)
        stock = StockDetector(self.model)
        with torch.inference_mode():
            outputs = [stock(torch.from_numpy(one)) for one in self.batches]
        groups = [per_image(batch, *(part.numpy() for part in parts)) for parts in outputs]
        self.expected = [one for group in groups for one in group]

    def average_precision(self, found: Sequence[Detections]) -> float:
        """AP50 on the images, 0..1; what was found in the copies that fill the last batch up does not count."""
        names = [image.file_name for image in self.split.images]
        real = zip(found[: len(names)], self.scales, strict=True)
        in_image = [one._replace(boxes=unfit(one.boxes, scale)) for one, scale in real]
        return evaluate(dict(zip(names, in_image, strict=True)), self.split)[Metric.MAP50]


def main() -> int:
    """Prints the table; 1 where a model does not go end to end as it must."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", default=list(FACTORIES), help="models; default: all five")
    parser.add_argument("--weights", type=Path, required=True)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--from", dest="source", choices=("canonical", "stock"), default="canonical")
    parser.add_argument("--batch", type=int, default=1, help="images of one call")
    parser.add_argument("--images", type=int, default=8, help="test images that are compared")
    parser.add_argument("--calibration", type=int, default=16, help="training images that INT8 is calibrated on")
    parser.add_argument("--work", type=Path, help="folder to keep the files in; default: none is kept")
    parser.add_argument("--json", type=Path, help="also write the results here")
    given = parser.parse_args()
    heads = ("model", "precision", "matched", "max score difference", "min IoU", "AP50 (eager)", "layers", "plugins")
    print("| " + " | ".join((*heads, "engine MB", f"seconds ({' / '.join(_STAGES)})", "verdict")) + " |")
    print("|---" * (len(heads) + 3) + "|")
    results: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as temporary:
        for name in given.names:
            subject = Subject(name, given.weights, given.data, given.images, given.calibration, given.batch)
            for result in go_through(subject, given.source, (given.work or Path(temporary)) / name):
                results.append(result)
                print(_row(result), flush=True)
    versions = {package: version(package) for package in ("torch", "torchvision", "onnx", "onnxruntime")}
    versions["tensorrt-rtx"] = version("tensorrt-rtx-cu13")
    machine = {"cpu": cpu_model(), "cores": usable_cores(), "versions": versions}
    images = f"{given.images} test images; INT8 calibrated on {given.calibration} training images"
    listed = ", ".join(f"{package} {number}" for package, number in versions.items())
    print(f"\nFrom the {given.source} export, batch {given.batch}; {images}.", end=" ")
    print(f"{machine['cores']} cores {machine['cpu']}, no GPU; {listed}")
    if given.json:
        given.json.write_text(
            json.dumps({"source": given.source, "batch": given.batch, "machine": machine, "results": results}, indent=2)
        )
    return int(any(result["verdict"] != "ok" for result in results))


def go_through(subject: Subject, source: str, folder: Path) -> list[dict[str, Any]]:
    """One row a precision; a stage that fails is the verdict of the rows that needed it."""
    folder.mkdir(parents=True, exist_ok=True)
    seconds: dict[str, float] = {}
    exported, operated = folder / f"{source}.onnx", folder / "operated.onnx"
    image = torch.from_numpy(subject.batches[0])
    common = {"model": subject.name, "source": source, "eager_ap50": subject.average_precision(subject.expected)}
    try:
        if source == "canonical":
            detector = canonical(subject.model, *IMAGE_SIZE)
            _timed(seconds, "export", lambda: export_onnx(detector, image, exported))
        else:
            stock = StockDetector(subject.model)
            _timed(seconds, "export", lambda: export_onnx(stock, image, exported, dynamic_detections=True))
        model, report = _timed(seconds, "surgery", lambda: operate(load_onnx(exported), TARGET))
        save_onnx(model, operated)
        common["unsettled"] = _unsettled(model, subject)
        common["surgery"] = {"nodes": [report.nodes_before, report.nodes_after], "end_to_end": report.end_to_end}
    except Exception as error:
        words = f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"
        return [common | {"precision": one, "seconds": seconds, "verdict": words} for one in PRECISIONS]
    return [_judged(subject, one, operated, folder, common, dict(seconds)) for one in PRECISIONS]


def _judged(
    subject: Subject, precision: str, operated: Path, folder: Path, common: dict[str, Any], seconds: dict[str, float]
) -> dict[str, Any]:
    result = common | {"precision": precision, "seconds": seconds}
    file = folder / f"{precision.lower()}.onnx"
    shape = list(subject.batches[0].shape)
    try:
        _timed(seconds, "convert", lambda: _convert(precision, operated, file, subject))
        card = _timed(seconds, "engine", lambda: build_engine(TARGET, file, file.with_suffix(".engine"), [], shape))
    except BuildError as error:
        return result | {"verdict": f"no engine: {error}"}
    except Exception as error:
        return result | {"verdict": f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"}
    found = run_onnx(file, subject.batches)
    parity = compare(subject.expected, found)
    result |= {
        "parity": parity.summary(),
        "ap50": subject.average_precision(found),
        "plugins": card.plugins,
        "layers": {_SHOWN.get(kind, kind): count for kind, count in card.precisions.items()},
        "engine_bytes": card.size_bytes,
    }
    return result | {"verdict": _verdict(result, parity.matched == parity.detections)}


def _convert(precision: str, operated: Path, file: Path, subject: Subject) -> None:
    if precision == "FP32":
        file.write_bytes(operated.read_bytes())
    elif precision == "FP16":
        convert_to_half(operated, file)
    else:
        with quiet():
            quantize_onnx(operated, file, TARGET, subject.calibration, vnni=False)


def _verdict(result: dict[str, Any], all_matched: bool) -> str:
    wrong = []
    if result["precision"] == "FP32" and not all_matched:
        wrong.append("detections differ from the eager model's")
    elif result["precision"] != "FP32" and not result["layers"].get(result["precision"]):
        wrong.append(f"no layer computes in {result['precision']}")
    if result["plugins"]:
        wrong.append("has plugins")
    if result["unsettled"]:
        wrong.append("the suppression had too few rounds")
    if sum(result["seconds"].values()) > MOST_SECONDS:
        wrong.append(f"took more than {MOST_SECONDS:.0f} s")
    return "; ".join(wrong) or "ok"


def _unsettled(model: onnx.ModelProto, subject: Subject) -> float:
    """Boxes that the last round of a suppression still changed, over all images: 0 proves the rounds were enough."""
    import onnxruntime

    probe = fixed_point_probe(model)
    names = [output.name for output in probe.graph.output if output.name.endswith("/unsettled")]
    if not names:
        return 0.0
    session = onnxruntime.InferenceSession(probe.SerializeToString(), providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name
    return float(sum(np.sum(session.run(names, {name: batch})) for batch in subject.batches))


def _timed(seconds: dict[str, float], stage: str, work: Callable[[], Any]) -> Any:
    started = time.monotonic()
    try:
        return work()
    finally:
        seconds[stage] = time.monotonic() - started


def _row(result: dict[str, Any]) -> str:
    times = " / ".join(f"{result['seconds'][stage]:.1f}" for stage in _STAGES if stage in result["seconds"])
    if "parity" not in result:
        cells = ["-"] * 7
    else:
        parity = result["parity"]
        cells = [
            f"{parity['matched']} of {parity['detections']}",
            f"{parity['max_score_difference']:.1e}",
            f"{parity['min_iou']:.4f}",
            f"{result['ap50']:.3f} ({result['eager_ap50']:.3f})",
            ", ".join(f"{count} {kind}" for kind, count in result["layers"].items()),
            str(result["plugins"]),
            f"{result['engine_bytes'] / 1e6:.1f}",
        ]
    return "| " + " | ".join((result["model"], result["precision"], *cells, times, result["verdict"])) + " |"


if __name__ == "__main__":
    sys.exit(main())
