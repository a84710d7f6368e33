"""Row 37: training mode."""

import numpy as np
import pytest
from onnx import TensorProto, helper
from surgery_graphs import BOOL, FLOAT, RTX, assert_untouched, make_model, ops, surgered, worst

from components.surgery.evaluate import Model
from components.surgery.operate import operate
from components.surgery.surgery import Outcome


def dropped(training, outputs=1):
    """Dropout, then a constant sum that folding has work with."""
    nodes = [
        helper.make_node("Add", ["one", "one"], ["two"]),
        helper.make_node("Dropout", ["x", "ratio", *training], ["kept", "mask"][:outputs], name="drop"),
        helper.make_node("Mul", ["kept", "two"], ["y"]),
    ]
    constants = {"one": np.float32(1), "ratio": np.float32(0.9), "on": np.array(True), "off": np.array(False)}
    made = {"y": (FLOAT, [50]), **({"mask": (BOOL, [50])} if outputs == 2 else {})}
    return make_model(nodes, {"x": (FLOAT, [50])}, made, constants)


def test_dropout_passes_its_input_on_and_its_mask_is_true():
    before = dropped(["on"], outputs=2)
    after, report = operate(before, RTX)
    assert {record.outcome for record in report.records} == {Outcome.DONE}
    assert "Dropout" not in ops(after)
    made = Model(after)({"x": np.ones(50, np.float32)})
    np.testing.assert_array_equal(made["y"], 2)
    assert made["mask"].all()


def test_other_rows_are_compared_without_randomness():
    """Folding is compared by whole outputs; a mask that differs from run to run would have it taken back."""
    after, report = operate(dropped(["on"]), RTX, only=[0])
    assert [record.outcome for record in report.records] == [Outcome.DONE]
    assert [record.max_error for record in report.records] == [0]
    assert [node.input[2] for node in after.graph.node if node.op_type == "Dropout"] == ["on"]


@pytest.mark.parametrize("shape", [[4, 3], ["n", 3, 5], [2, 3, 4, 4]])
@pytest.mark.parametrize("kind", [FLOAT, TensorProto.FLOAT16])
def test_statistics_of_the_batch_stay(shape, kind):
    dtype = np.float16 if kind != FLOAT else np.float32
    names = ["scale", "bias", "mean", "variance"]
    node = helper.make_node("BatchNormalization", ["x", *names], ["y", "m", "v"], training_mode=1, epsilon=1e-3)
    rng = np.random.default_rng(0)
    constants = {name: rng.uniform(0.5, 2, 3).astype(dtype) for name in names}
    before = make_model([node], {"x": (kind, shape)}, {"y": (kind, shape)}, constants)
    after = surgered(before) if kind == FLOAT else operate(before, RTX)[0]
    assert "BatchNormalization" not in ops(after)
    x = rng.normal(3, 2, [size if isinstance(size, int) else 4 for size in shape]).astype(dtype)
    if kind == FLOAT:
        assert worst(before, after, [{"x": x}]) < 1e-5
        return
    exact = (x.astype(float) - x.mean((0, *range(2, x.ndim)), float, keepdims=True)) / np.sqrt(
        x.astype(float).var((0, *range(2, x.ndim)), keepdims=True) + 1e-3
    )
    across = (1, 3, *([1] * (x.ndim - 2)))
    exact = exact * constants["scale"].astype(float).reshape(across) + constants["bias"].astype(float).reshape(across)
    np.testing.assert_allclose(Model(after)({"x": x})["y"], exact, atol=2e-2)


def test_inference_is_untouched():
    for training in ([], ["off"]):
        model = dropped(training)
        assert_untouched(model, 37)
    names = ["scale", "bias", "mean", "variance"]
    node = helper.make_node("BatchNormalization", ["x", *names], ["y"])
    constants = {name: np.ones(3, np.float32) for name in names}
    assert_untouched(make_model([node], {"x": (FLOAT, [2, 3])}, {"y": (FLOAT, [2, 3])}, constants), 37)
