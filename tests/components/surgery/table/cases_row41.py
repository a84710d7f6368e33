"""Row 41: initializers among the inputs or not, and old IR and opset versions."""

import numpy as np
from onnx import helper
from surgery_cases import Case
from surgery_graphs import FLOAT, make_model


def convolution(opset, ir_version, *, listed):
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


CASES = [
    Case("onnx-tensorrt #302: IR 6, opset 8", lambda: convolution(8, 6, listed=False), before="ok"),
    Case("onnx #2417: weights are inputs, IR 3", lambda: convolution(8, 3, listed=True), before="ok"),
    Case("weights are inputs, IR 8", lambda: convolution(17, 8, listed=True), before="ok"),
]
