"""Models that are no detectors are timed side by side, and what they put out comes back."""

import itertools

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from components.benchmark.rounds import Pace
from components.benchmark.tensors import Racer, race


def write(path, repeats):
    """``y = x @ w`` so many times."""
    rng = np.random.default_rng(0)
    weights = rng.normal(0, 256**-0.5, (256, 256)).astype(np.float32)
    names = ["x", *(f"h{number}" for number in range(repeats - 1)), "y"]
    nodes = [helper.make_node("MatMul", [a, "w"], [b]) for a, b in itertools.pairwise(names)]
    value = helper.make_tensor_value_info
    graph = helper.make_graph(
        nodes,
        "g",
        [value("x", TensorProto.FLOAT, [1, 64, 256])],
        [value("y", TensorProto.FLOAT, [1, 64, 256])],
        [numpy_helper.from_array(weights, "w")],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9), path)
    return path


def racer(name, runtime, file, tmp_path):
    fields = {"runtime": runtime, "file": str(file), "options": {}, "threads": 1}
    return Racer(name, fields | {"feeds": str(tmp_path / "x.npz"), "model": str(tmp_path / "long.onnx")})


def test_race_of_arrays(tmp_path):
    long, short = write(tmp_path / "long.onnx", 24), write(tmp_path / "short.onnx", 2)
    np.savez(tmp_path / "x.npz", x=np.random.default_rng(1).normal(size=(3, 64, 256)).astype(np.float32))
    (tmp_path / "broken.onnx").write_bytes(b"no model")
    racers = [
        racer("long", "onnxruntime", long, tmp_path),
        racer("same", "openvino", long, tmp_path),
        racer("short", "onnxruntime", short, tmp_path),
        racer("broken", "onnxruntime", tmp_path / "broken.onnx", tmp_path),
    ]
    found = race(racers, tmp_path / "out", 1, Pace(3, 0.02, 0), lambda *_: None)
    assert found["short"].over(found["long"], processor=True).ratio > 2
    assert found["short"].processor.p50 < found["long"].processor.p50
    for exact, other in zip(found["long"].outputs, found["same"].outputs, strict=True):
        np.testing.assert_allclose(exact[0], other[0], rtol=1e-3, atol=1e-3)
    assert not np.allclose(found["long"].outputs[0][0], found["long"].outputs[1][0])
    assert "ONNX Runtime refuses broken.onnx" in found["broken"].failure
    assert found["broken"].latency is None
    assert found["long"].peak_rss_bytes > 2**20
