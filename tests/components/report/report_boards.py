"""A whole run's worth of input for the report: a bundle with test images, detections and a finished board."""

import json
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw

from components.core.contracts.job import Goal, Job, Metric, Runtime
from components.core.contracts.leaderboard import Accuracy, Candidate, Latency, Leaderboard, Ratio
from components.core.contracts.variant import Status
from components.core.tasks.detection import Detections, write_detections

BASE_P50, BASE_MAP50 = 61.2, 0.421
COMMAND = "hasten run pipelines/examples/trees.yaml --out runs/trees"
GOAL = Goal(min_speedup="2x", max_accuracy_drop=0.02)

ENGINE = {
    "builder": "tensorrt-rtx 1.7.1",
    "layers": 214,
    "plugins": [],
    "compute_capabilities": ["8.6", "8.9"],
    "profile": {"image": {"min": [1, 3, 256, 256], "opt": [1, 3, 256, 256], "max": [1, 3, 256, 256]}},
    "seconds": 12.84,
}
INT8 = {
    "quantized": 71,
    "restored_to_fp32": [
        {"layer": "/roi_heads/box_predictor/cls_score/Gemm", "accuracy_gain": 0.0041},
        {"layer": "/rpn/head/cls_logits/Conv", "accuracy_gain": 0.0017},
    ],
}
PARITY = {"images": 12, "matched": 412, "detections": 412, "max_score_difference": 3.1e-6, "equal": True}


def job(goal: Goal = GOAL) -> Job:
    split = {"annotations": "data/test.json", "images": "data/images"}
    return Job(
        name="trees",
        model={"factory": "pipelines.samples.compact_faster_rcnn:build", "weights": "weights.safetensors"},
        data={"train": split, "test": split},
        target={"runtimes": ["onnxruntime", "openvino", "tensorrt-rtx"], "input_shape": [1, 3, 256, 256]},
        goal=goal,
    )


def row(name: str, p50: float, map50: float, runtime: Runtime, techniques: list[str], **fields: Any) -> Candidate:
    ratio, around = BASE_P50 / p50, fields.pop("around", 2.3)
    width = 0 if name == "eager" else 0.035
    return Candidate(
        **{
            "id": name,
            "rung": techniques[-1] if techniques else "baseline",
            "techniques": techniques,
            "runtime": runtime,
            "status": Status.OK,
            "latency_ms": Latency(p50=p50, p90=p50 * 1.08, p99=p50 * 1.31),
            "model_latency_ms": Latency(p50=p50 - around, p90=p50 * 1.05, p99=p50 * 1.2),
            "speedup": Ratio(ratio=ratio, ci_low=ratio * (1 - width), ci_high=ratio * (1 + width)),
            "throughput": 1000 / p50,
            "accuracy": Accuracy(metric=Metric.MAP50, value=map50, drop=round(BASE_MAP50 - map50, 6)),
            "other_accuracy": {Metric.MAP: map50 * 0.43},
            "size_bytes": 11_640_000,
            "peak_rss_bytes": 412_000_000,
            "stable": True,
            "threads": 2,
            "rounds": 12,
            "uri": f"file:///runs/trees/{name}",
            "file": "model.onnx",
            "sha256": "9f" * 32,
            **fields,
        }
    )


def rows() -> list[Candidate]:
    ort, vino, rtx = Runtime.ONNXRUNTIME, Runtime.OPENVINO, Runtime.TENSORRT_RTX
    return [
        row("eager", BASE_P50, BASE_MAP50, Runtime.TORCH, [], reference=True, around=3.4),
        row("fp32-onnxruntime", 36.4, 0.4209, ort, [], reference=True, details={"parity": PARITY}),
        row("fp32-openvino", 33.1, 0.4212, vino, [], reference=True),
        row("surgery-onnxruntime", 34.9, 0.4209, ort, ["surgery"]),
        row("surgery-openvino", 30.2, 0.4212, vino, ["surgery"]),
        row("int8-onnxruntime", 41.7, 0.409, ort, ["surgery", "int8"], size_bytes=3_420_000, stable=False,
            reason="slower than FP32: no VNNI on this CPU"),
        row("int8-openvino", 22.6, 0.4147, vino, ["surgery", "int8"], size_bytes=3_380_000, details={"int8": INT8}),
        Candidate(id="int8-tensorrt-rtx", rung="int8", techniques=["surgery", "int8"], runtime=rtx,
                  status=Status.SKIPPED, reason="engine built, not timed: no GPU", size_bytes=4_900_000,
                  details={"engine": ENGINE}),
        row("fp16-openvino", 31.0, 0.4211, vino, ["surgery", "fp16"], size_bytes=5_910_000),
        Candidate(id="fp16-onnxruntime", rung="fp16", techniques=["surgery", "fp16"], runtime=ort, status=Status.FAILED,
                  reason="outputs are NaN on 3 of 12 test images: box head overflows in half precision"),
    ]  # fmt: skip


def board(candidates: list[Candidate] | None = None, goal: Goal = GOAL) -> Leaderboard:
    return Leaderboard(
        job="trees",
        goal=goal,
        baseline="eager",
        candidates=rows() if candidates is None else candidates,
        environment={
            "cpu": "x86-64, 2 cores, AVX2",
            "memory": "8 GB",
            "os": "Linux 6.8, glibc 2.36",
            "python": "3.11.9",
            "torch": "2.14.1",
            "openvino": "2026.1",
            "gpu": "none",
        },
    )


def with_detections(candidates: list[Candidate], folder: Path, bundle: Path, seed: int = 0) -> list[Candidate]:
    """Gives every measured row a detections file: the truth, shaken, with some misses and some inventions."""
    document = json.loads((bundle / "data/test/annotations.json").read_text())
    chance = np.random.default_rng(seed)
    found = []
    for each in candidates:
        if each.latency_ms is None:
            found.append(each)
            continue
        detections = {}
        for image in document["images"]:
            boxes = [
                [x, y, x + width, y + height]
                for record in document["annotations"]
                for x, y, width, height in [record["bbox"]]
                if record["image_id"] == image["id"] and chance.random() < 0.8
            ]
            truth = np.asarray(boxes, np.float32).reshape(-1, 4)
            shaken = truth + chance.normal(0, 2.0, truth.shape).astype(np.float32)
            invented = np.asarray([[10, 10, 40, 44]], np.float32)
            everything = np.concatenate([shaken, invented])
            scores = np.concatenate([chance.uniform(0.4, 1.0, len(shaken)), [0.3]]).astype(np.float32)
            labels = np.full(len(everything), document["categories"][0]["id"], np.int64)
            detections[image["file_name"]] = Detections(everything, scores, labels)
        path = folder / f"{each.id}.json"
        write_detections(path, detections)
        found.append(each.model_copy(update={"details": {**each.details, "detections": str(path)}}))
    return found


def make_bundle(folder: Path, images: int = 6, side: int = 200, classes: tuple[str, ...] = ("tree",)) -> Path:
    """A bundle whose test split has small drawn images: dark discs on noise, one annotation a disc."""
    chance = np.random.default_rng(11)
    pictures = folder / "data/test/images"
    pictures.mkdir(parents=True)
    records, annotations = [], []
    for number in range(1, images + 1):
        name = f"window_{number:02}.png"
        picture = Image.fromarray(chance.integers(90, 150, (side, side, 3), dtype=np.uint8))
        draw = ImageDraw.Draw(picture)
        for _ in range(5):
            x, y, size = (int(value) for value in chance.integers([5, 5, 20], [side - 50, side - 50, 44]))
            draw.ellipse((x, y, x + size, y + size), fill=(30, 70, 35))
            category = 1 + int(chance.integers(len(classes)))
            annotations.append(
                {"id": len(annotations) + 1, "image_id": number, "category_id": category, "bbox": [x, y, size, size],
                 "area": size * size, "iscrowd": 0}
            )  # fmt: skip
        picture.save(pictures / name)
        records.append({"id": number, "file_name": name, "width": side, "height": side})
    categories = [{"id": index, "name": name} for index, name in enumerate(classes, start=1)]
    document = {"images": records, "annotations": annotations, "categories": categories}
    (folder / "data/test/annotations.json").write_text(json.dumps(document))
    return folder
