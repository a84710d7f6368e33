"""Times everything that was made of one model side by side, and takes its accuracy from what it puts out."""

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from cells import HASTEN, PEERS, size_of
from zoo import DETECTORS, TEST, BenchModel, detector_files, detector_shape

from components.benchmark.rounds import Pace
from components.benchmark.tensors import Outputs, Racer, Timed, race
from components.core.contracts.leaderboard import Ratio
from components.core.tasks.detection import Detections, DetectionSplit, drop_padding, evaluate, fit, read_split, unfit
from components.int8.sqnr import sqnr_db

ONNX_FP32, OPENVINO_FP32, EAGER, COMPILED = "ONNX Runtime FP32", "OpenVINO FP32", "eager", "torch.compile"
Progress = Callable[[str, float | None, float | None], None]


def race_model(
    model: BenchModel,
    made: dict[str, dict[str, Any]],
    samples: Path,
    out: Path,
    threads: int,
    pace: Pace,
    progress: Progress,
) -> list[dict[str, Any]]:
    """One row a competitor, FP32 in ONNX Runtime first.

    Args:
        model: the model.
        made: the cells by tool.
        samples: `.hasten/samples`.
        out: folder for logs.
        threads: CPU threads of each.
        pace: rounds.
        progress: told what is going on.
    """
    racers = [_file(ONNX_FP32, "onnxruntime", model.onnx, model, threads)]
    racers.append(_file(OPENVINO_FP32, "openvino", model.onnx, model, threads))
    racers.extend(_torch(name, model, samples, threads) for name in (EAGER, COMPILED))
    for tool, cell in made.items():
        if "error" not in cell:
            racers.append(_file(tool, cell["runtime"], Path(cell["file"]), model, threads, cell["options"]))
    sys.path.insert(0, str(Path(__file__).parent))  # the torch worker is found there
    timed = race(racers, out, threads, pace, progress)
    judge = _judge(model, samples, timed[ONNX_FP32].outputs)
    rows = []
    for name in (*(racer.id for racer in racers[:4]), *made):
        cell = made.get(name, {})
        rows.append(_row(name, cell, timed.get(name), timed, judge, model, pace.seed))
    return rows


def _row(
    name: str,
    cell: dict[str, Any],
    one: Timed | None,
    timed: dict[str, Timed],
    judge: Callable[[Outputs], float],
    model: BenchModel,
    seed: int,
) -> dict[str, Any]:
    row: dict[str, Any] = {"competitor": name, "form": cell.get("form", "")}
    row |= {key: cell.get(key) for key in ("seconds", "processor_seconds", "peak_bytes")}
    error = cell.get("error") or (one.failure if one else "")
    if error or one is None or one.latency is None or one.processor is None:
        return row | {"error": error or "not measured"}
    hasten = timed.get(HASTEN)
    row |= {
        "p50_ms": one.latency.p50,
        "processor_ms": one.processor.p50,
        "over_onnxruntime": _told(one.over(timed[ONNX_FP32], processor=True, seed=seed)),
        "over_onnxruntime_wall": _told(one.over(timed[ONNX_FP32], processor=False, seed=seed)),
        "run_peak_bytes": one.peak_rss_bytes,
        "accuracy": judge(one.outputs),
    }
    if hasten and not hasten.failure and hasten is not one:
        row["hasten_over_it"] = _told(hasten.over(one, processor=True, seed=seed))
    if name not in (EAGER, COMPILED):
        file = Path(cell["file"]) if cell else model.onnx
        row["bytes"] = size_of(file)
        row["share_of_fp32"] = row["bytes"] / size_of(model.onnx)
    return row


def _told(ratio: Ratio) -> dict[str, float]:
    return {"ratio": ratio.ratio, "ci_low": ratio.ci_low, "ci_high": ratio.ci_high}


def _file(
    name: str, runtime: str, file: Path, model: BenchModel, threads: int, options: dict[str, str] | None = None
) -> Racer:
    fields = {"runtime": runtime, "file": str(file.resolve()), "options": options or {}, "threads": threads}
    return Racer(name, fields | {"feeds": str(model.test.resolve()), "model": str(model.onnx.resolve())})


def _torch(name: str, model: BenchModel, samples: Path, threads: int) -> Racer:
    fields: dict[str, Any] = {
        "model": model.name,
        "file": str(model.onnx.resolve()),
        "feeds": str(model.test.resolve()),
        "samples": str(samples.resolve()),
        "threads": threads,
        "compiled": name == COMPILED,
    }
    return Racer(name, fields, module="torch_worker")


def _judge(model: BenchModel, samples: Path, exact: Outputs) -> Callable[[Outputs], float]:
    """mAP (IoU 0.50 to 0.95) of a detector on the first test images, else dB against FP32."""
    if model.name not in DETECTORS:
        return lambda outputs: sqnr_db(exact, outputs)
    _, test, images, _ = detector_files(model.name, samples)
    split = read_split(test, images)
    first = split.images[:TEST]
    ids = {one.id for one in first}
    document = dict(split.document)
    document["images"] = [one for one in document["images"] if int(one["id"]) in ids]
    document["annotations"] = [one for one in document["annotations"] if int(one["image_id"]) in ids]
    part = DetectionSplit(split.annotations, tuple(first), split.categories, document)
    height, width = detector_shape(model.name)
    scales = [fit(one.load(), height, width)[1] for one in first]

    def judge(outputs: Outputs) -> float:
        found: dict[str, Detections] = {}
        for image, scale, (boxes, scores, labels) in zip(first, scales, outputs, strict=True):
            one = drop_padding(*(np.asarray(value).reshape(-1, *value.shape[-1:]) if value.ndim > 2 else value
                                 for value in (boxes, scores, labels)))  # fmt: skip
            found[image.file_name] = one._replace(boxes=unfit(one.boxes, scale))
        return float(evaluate(found, part)["map"])

    return judge


def cached_race(path: Path, fresh: Callable[[], list[dict[str, Any]]], key: dict[str, Any]) -> list[dict[str, Any]]:
    """The rows of an earlier run of the same competitors, or new ones."""
    if path.exists():
        kept = json.loads(path.read_text())
        if kept["key"] == key:
            rows: list[dict[str, Any]] = kept["rows"]
            return rows
    rows = fresh()
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({"key": key, "rows": rows}, indent=2))
    return rows


__all__ = ["HASTEN", "PEERS", "cached_race", "race_model"]
