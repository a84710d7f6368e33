"""Row 37: training mode."""

import io
import warnings

import numpy as np
import onnx
import torch
from onnx import helper
from surgery_cases import Case
from surgery_graphs import BOOL, FLOAT, make_model
from torch import nn


def not_in_eval():
    """A classifier whose author forgot ``eval()``, and an exporter that was told to keep it so."""
    torch.manual_seed(0)
    module = nn.Sequential(
        nn.Conv2d(3, 4, 3),
        nn.BatchNorm2d(4),
        nn.ReLU(),
        nn.Dropout(0.2),
        nn.Flatten(),
        nn.Linear(64, 5),
        nn.Dropout(),
    )
    buffer = io.BytesIO()
    options = {"training": torch.onnx.TrainingMode.TRAINING, "do_constant_folding": False}
    names = {"input_names": ["x"], "output_names": ["y"], "dynamic_axes": {"x": {0: "n"}}}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            module.train(), (torch.rand(2, 3, 6, 6),), buffer, dynamo=False, opset_version=17, **options, **names
        )
    return onnx.load_from_string(buffer.getvalue())


def dropout(with_mask):
    nodes = [helper.make_node("Dropout", ["x", "ratio", "training"], ["y", "mask"], name="drop")]
    if not with_mask:
        del nodes[0].output[1:]
    constants = {"ratio": np.float32(0.5), "training": np.array(True)}
    outputs = {"y": (FLOAT, ["n", 4]), **({"mask": (BOOL, ["n", 4])} if with_mask else {})}
    return make_model(nodes, {"x": (FLOAT, ["n", 4])}, outputs, constants)


def batch_normalization():
    nodes = [
        helper.make_node(
            "BatchNormalization",
            ["x", "scale", "bias", "mean", "variance"],
            ["y", "new_mean", "new_variance"],
            training_mode=1,
            momentum=0.8,
        )
    ]
    constants = {name: np.array([1, 2, 0.5], np.float32) for name in ("scale", "bias", "mean", "variance")}
    shape = ["n", 3, 5]
    outputs = {"y": (FLOAT, shape), "new_mean": (FLOAT, [3]), "new_variance": (FLOAT, [3])}
    return make_model(nodes, {"x": (FLOAT, shape)}, outputs, constants)


# A Dropout is compared with its inference form: what is random has no answer to compare with.
CASES = [
    Case("Dropout", lambda: dropout(with_mask=False), before="reject"),
    Case("Dropout whose mask is read", lambda: dropout(with_mask=True), before="reject"),
    Case("BatchNormalization, statistics as outputs", batch_normalization, before="reject"),
    Case("torch model not in eval()", not_in_eval, before="reject"),
]
