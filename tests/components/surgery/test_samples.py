"""Real inputs take part in the proof: a surgery that is wrong on them only is taken back."""

import numpy as np
import pytest
from onnx import helper
from surgery_graphs import FLOAT, make_model

from components.core.contracts.job import Runtime
from components.core.errors import UserError
from components.core.onnx_files import save_onnx
from components.surgery import operate as operate_module
from components.surgery.operate import operate
from components.surgery.proof import SEEDS
from components.surgery.samples import read_samples
from components.surgery.surgery import EVERY_TARGET, Change, Outcome, Surgery


def clipped():
    constants = {"low": np.float32(-50), "high": np.float32(50)}
    nodes = [helper.make_node("Clip", ["x", "low", "high"], ["y"], name="clip")]
    return make_model(nodes, {"x": (FLOAT, [4])}, {"y": (FLOAT, [4])}, constants)


def drop_clip(graph, options):
    node = graph.nodes[0]
    if node.op != "Clip" or node.name in options.skip:
        return []
    node.op, node.inputs = "Identity", node.inputs[:1]
    return [Change("clip", "a reason", "a deed", inputs=("x",), outputs=("y",))]


@pytest.mark.parametrize(("scale", "outcome"), [(1, Outcome.DONE), (1000, Outcome.ROLLED_BACK)])
def test_real_inputs_decide(tmp_path, monkeypatch, scale, outcome):
    surgery = Surgery(99, "clip", "none", lambda graph: graph.nodes[0].op == "Clip", drop_clip, EVERY_TARGET)
    monkeypatch.setattr(operate_module, "SURGERIES", (surgery,))
    save_onnx(clipped(), tmp_path / "model.onnx")
    np.savez(tmp_path / "frame.npz", x=np.array([-1, 0, 1, 2], np.float32) * scale, other=np.zeros(2))
    samples = read_samples([tmp_path / "frame.npz"], tmp_path / "model.onnx")
    _, report = operate(clipped(), Runtime.OPENVINO, seeds=[*samples, *SEEDS])
    assert [record.outcome for record in report.records] == [outcome]


def test_nothing_given_is_nothing_read(tmp_path):
    assert read_samples([], tmp_path / "not looked at.onnx") == []


def test_objects_are_never_unpickled(tmp_path):
    save_onnx(clipped(), tmp_path / "model.onnx")
    np.savez(tmp_path / "bad.npz", x=np.array([{"a": 1}], dtype=object))
    with pytest.raises(UserError, match=r"--input: bad\.npz: it is no \.npz file of plain arrays") as refusal:
        read_samples([tmp_path / "bad.npz"], tmp_path / "model.onnx")
    assert "pickle" not in str(refusal.value)  # NumPy's words advise to unpickle it all the same


def test_half_a_file_is_refused(tmp_path):
    save_onnx(clipped(), tmp_path / "model.onnx")
    np.savez(tmp_path / "half.npz", x=np.zeros(4, np.float32))
    whole = (tmp_path / "half.npz").read_bytes()
    (tmp_path / "half.npz").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(UserError, match=r"half\.npz: it is no \.npz file"):
        read_samples([tmp_path / "half.npz"], tmp_path / "model.onnx")
