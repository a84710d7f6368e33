"""Row 41: initializers among the inputs or not, and old IR and opset versions: the threads of the article by name."""

import numpy as np
import pytest
import torch
from onnx import helper, version_converter
from surgery_graphs import FLOAT, assert_untouched, export, make_model, needs_rtx, ops, rtx, surgered, worst
from torch import nn

from components.core.contracts.job import Runtime
from components.surgery.operate import operate
from components.surgery.surgery import Outcome


def convolution(opset=17, ir_version=8, *, listed=True):
    """Conv -> LeakyRelu -> MaxPool, as in tiny-YOLOv2; the weights are listed among the inputs or not."""
    nodes = [
        helper.make_node("Conv", ["image", "weights", "bias"], ["features"], pads=[1, 1, 1, 1]),
        helper.make_node("LeakyRelu", ["features"], ["active"], alpha=0.1),
        helper.make_node("MaxPool", ["active"], ["grid"], kernel_shape=[2, 2], strides=[2, 2]),
    ]
    rng = np.random.default_rng(0)
    constants = {
        "weights": rng.standard_normal((4, 3, 3, 3)).astype(np.float32),
        "bias": rng.standard_normal(4).astype(np.float32),
    }
    inputs = {"image": (FLOAT, [1, 3, 16, 16])}
    if listed:
        inputs |= {name: (FLOAT, value.shape) for name, value in constants.items()}
    return make_model(nodes, inputs, {"grid": (FLOAT, [1, 4, 8, 8])}, constants, opset, ir_version)


FEEDS = [{"image": np.random.default_rng(seed).random((1, 3, 16, 16), np.float32)} for seed in range(3)]


@needs_rtx
@pytest.mark.parametrize("listed", [False, True])
def test_onnx_tensorrt_302_tiny_yolo_of_ir_6_parses_and_builds(listed):
    """onnx-tensorrt #302: the parser wanted initializers among the inputs, where IR 4 and later has none."""
    before = convolution(opset=8, ir_version=6, listed=listed)
    after = surgered(before)
    assert [value.name for value in after.graph.input] == ["image"]
    assert after.ir_version >= 8
    assert after.opset_import[0].version == 17
    assert rtx(after)[::2] == ("ok", 0)
    assert worst(before, after, FEEDS) == 0


def test_onnx_2417_initializers_that_are_no_inputs_any_more_do_not_crash_the_tools():
    """onnx #2417: the optimizer raised IndexError on files whose initializers are not among the inputs."""
    before = convolution(listed=False, ir_version=4, opset=11)
    after = surgered(before)  # runs onnx's full checker
    assert [value.name for value in after.graph.input] == ["image"]
    assert worst(before, after, FEEDS) == 0


class Upsampled(nn.Module):
    def forward(self, x):
        return nn.functional.interpolate(x, scale_factor=2.0, mode="nearest")


@needs_rtx
def test_tensorrt_284_upsampling_of_opset_9_and_11_builds():
    """TensorRT #284: Upsample and Resize, whose form changed at opset 11."""
    image = torch.rand(1, 3, 6, 6)
    nodes = [helper.make_node("Upsample", ["image", "scales"], ["y"], mode="nearest")]
    scales = {"scales": np.array([1, 1, 2, 2], np.float32)}
    old = make_model(nodes, {"image": (FLOAT, [1, 3, 6, 6])}, {"y": (FLOAT, [1, 3, 12, 12])}, scales, 9, 4)
    newer = export(Upsampled(), image, opset=11, input_names=["image"])
    for before in (old, newer):
        after = surgered(before)
        assert ops(after) == {"Resize"}
        assert rtx(after)[::2] == ("ok", 0)
        assert worst(before, after, [{"image": image.numpy()}]) == 0


def test_a_modern_file_that_lists_its_initializers_only_loses_them_from_its_inputs():
    before = convolution(listed=True)
    after = surgered(before)
    assert [value.name for value in after.graph.input] == ["image"]
    assert sorted(tensor.name for tensor in after.graph.initializer) == ["bias", "weights"]
    assert (after.ir_version, after.opset_import[0].version) == (8, 17)
    assert worst(before, after, FEEDS) == 0


@pytest.mark.parametrize("target", [Runtime.ONNXRUNTIME, Runtime.OPENVINO])
def test_cpu_runtimes_get_clean_inputs_too(target):
    before = convolution(opset=9, ir_version=3)
    after = surgered(before, target)
    assert [value.name for value in after.graph.input] == ["image"]
    assert worst(before, after, FEEDS) == 0


def test_what_onnx_cannot_convert_is_left_with_its_words(monkeypatch):
    def refuse(model, version):
        raise RuntimeError("Adapter is missing for Fancy")

    monkeypatch.setattr(version_converter, "convert_version", refuse)
    after, report = operate(convolution(opset=11), Runtime.TENSORRT)
    assert after.opset_import[0].version == 11
    (record,) = report.left
    assert record.outcome is Outcome.REFUSED
    assert "Adapter is missing for Fancy" in record.what


def test_modern_graphs_are_untouched():
    assert_untouched(convolution(listed=False), 41)
    assert_untouched(convolution(listed=False, opset=18, ir_version=10), 41)
