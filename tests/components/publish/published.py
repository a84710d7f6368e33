"""Boards with a real ONNX winner, and checks of what a store shows."""

import hashlib
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
from onnx import TensorProto, helper, numpy_helper

from components.core.contracts.job import Goal, Job, Metric, Runtime
from components.core.contracts.leaderboard import Accuracy, Candidate, Latency, Leaderboard, Ratio
from components.core.contracts.variant import Manifest, Status, Variant
from components.core.files import sha256_file
from components.publish.records import VersionManifest
from components.publish.store import Store


def save_model(path: Path, seed: int = 0, location: str | None = None) -> None:
    """A detector-shaped ONNX file whose weights depend on the seed; in another file if `location` is given."""
    boxes = np.random.default_rng(seed).random((100, 4), dtype=np.float32)
    weight = numpy_helper.from_array(boxes, "w")
    if location is not None:
        weight.ClearField("raw_data")
        weight.data_location = TensorProto.EXTERNAL
        weight.external_data.add(key="location", value=location)
        (path.parent / location).write_bytes(boxes.tobytes())
    nodes = [
        helper.make_node("Identity", ["w"], ["boxes"]),
        helper.make_node("ReduceMax", ["w"], ["scores"], axes=[1], keepdims=0),
        helper.make_node("Cast", ["scores"], ["labels"], to=TensorProto.INT64),
        helper.make_node("Identity", ["image"], ["unused"]),
    ]
    outputs = [
        helper.make_tensor_value_info("boxes", TensorProto.FLOAT, [100, 4]),
        helper.make_tensor_value_info("scores", TensorProto.FLOAT, [100]),
        helper.make_tensor_value_info("labels", TensorProto.INT64, [100]),
    ]
    image = helper.make_tensor_value_info("image", TensorProto.FLOAT, [1, 3, 64, 64])
    graph = helper.make_graph(nodes, "g", [image], outputs, [weight])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)
    path.write_bytes(model.SerializeToString())


def make_job(to: str | None, endpoint: str | None = None, name: str = "trees", threads: int | None = None) -> Job:
    split = {"annotations": "/data/x.json", "images": "/data/images"}
    return Job.model_validate(
        {
            "name": name,
            "model": {"factory": "user_models:detector", "weights": "/models/w.safetensors"},
            "data": {"train": split, "test": split},
            "target": {"runtimes": ["onnxruntime"], "input_shape": [1, 3, 64, 64], "threads": threads},
            "goal": {"min_speedup": "2x", "max_accuracy_drop": 0.02},
            "publish": {"to": to, "endpoint": endpoint} if to else None,
        }
    )


def make_board(
    folder: Path, seed: int = 0, p50: float = 10.0, runtime: Runtime = Runtime.ONNXRUNTIME, file: str = "m.onnx"
) -> Leaderboard:
    """A board that `int8` won, with its model file in `folder`, made if it is an ONNX file and not there."""
    folder.mkdir(parents=True, exist_ok=True)
    if file.endswith(".onnx") and not (folder / file).exists():
        save_model(folder / file, seed)
    variant = Variant(id="int8", runtime=runtime, techniques=["surgery", "int8"], file=file)
    Manifest(task="detection", input_shape=(1, 3, 64, 64), labels={1: "tree"}, variants=[variant]).write(folder)
    winner = Candidate(
        **variant.model_dump(include={"id", "runtime", "techniques", "file"}),
        rung="int8",
        status=Status.OK,
        uri=str(folder),
        sha256=sha256_file(folder / file),
        latency_ms=Latency(p50=p50, p90=p50 + 1, p99=p50 + 2),
        speedup=Ratio(ratio=30 / p50, ci_low=29 / p50, ci_high=31 / p50),
        throughput=1000 / p50,
        accuracy=Accuracy(metric=Metric.MAP50, value=0.41, drop=0.01),
        size_bytes=1234,
        meets_goal=True,
        versions={"onnxruntime": "1.32"},
    )
    eager = Candidate(
        id="eager", rung="baseline", techniques=[], runtime=Runtime.TORCH, status=Status.OK, reference=True,
        latency_ms=Latency(p50=30, p90=31, p99=32), throughput=33.0, size_bytes=5000,
        accuracy=Accuracy(metric=Metric.MAP50, value=0.42, drop=0),
    )  # fmt: skip
    return Leaderboard(
        job="trees",
        goal=Goal(min_speedup=2, max_accuracy_drop=0.02),
        baseline="eager",
        goal_met=True,
        winner="int8",
        why="int8 is 3.00x faster",
        candidates=[eager, winner],
        environment={"cpu": "a CPU | with a bar"},
    )


def make_report(folder: Path, text: str = "report") -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "report.html").write_text(f"<html>{text}</html>")
    (folder / "leaderboard.json").write_text(json.dumps({"text": text}))
    return folder


def check_version(read: Callable[[str], bytes | None], version: str) -> VersionManifest:
    """Every file that the manifest names is there with its hash."""
    content = read(f"versions/{version}/manifest.json")
    assert content is not None
    manifest = VersionManifest.model_validate_json(content)
    assert manifest.version == version == manifest.content_sha256[:16]
    for file in manifest.files:
        body = read(f"versions/{version}/{file.path}")
        assert body is not None, file.path
        assert (hashlib.sha256(body).hexdigest(), len(body)) == (file.sha256, file.size_bytes)
    paths = {file.path for file in manifest.files}
    assert {manifest.model, manifest.model_card} < paths
    return manifest


def reader(store: Store) -> Callable[[str], bytes | None]:
    def read(key: str) -> bytes | None:
        stored = store.read(key)
        return stored.content if stored else None

    return read
