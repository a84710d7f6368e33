"""Row 8: a UINT8 graph input."""

import numpy as np
import torch
from onnx import TensorProto, helper
from surgery_cases import Case
from surgery_graphs import FLOAT, export, make_model
from torch import nn

UINT8 = TensorProto.UINT8


class Preprocessed(nn.Module):
    """Channels last from the decoder, as OpenCV hands images over."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Conv2d(3, 4, 3)

    def forward(self, image):
        return self.layer(image.permute(0, 3, 1, 2).float() / 255)


def decoded():
    torch.manual_seed(0)
    image = torch.randint(0, 256, (1, 8, 9, 3), dtype=torch.uint8)
    axes = {"image": {0: "n"}}
    return export(Preprocessed(), image, input_names=["image"], output_names=["y"], dynamic_axes=axes)


def cast_first():
    nodes = [helper.make_node("Cast", ["image"], ["floats"], to=FLOAT), helper.make_node("Relu", ["floats"], ["y"])]
    return make_model(nodes, {"image": (UINT8, [1, 3, 4, 4])}, {"y": (FLOAT, [1, 3, 4, 4])})


def resized():
    """Nearest neighbours and a crop before the cast, and the crop as a second output."""
    nodes = [
        helper.make_node("Resize", ["image", "", "scales"], ["large"], mode="nearest"),
        helper.make_node("Slice", ["large", "from", "to", "axis"], ["crop"]),
        helper.make_node("Cast", ["crop"], ["y"], to=FLOAT),
    ]
    constants = {"scales": np.array([1, 1, 2, 2], np.float32)}
    constants |= {"from": np.array([1]), "to": np.array([7]), "axis": np.array([3])}
    outputs = {"y": (FLOAT, [1, 3, 8, 6]), "crop": (UINT8, [1, 3, 8, 6])}
    return make_model(nodes, {"image": (UINT8, [1, 3, 4, 4])}, outputs, constants)


def pixels(*shape):
    return lambda rng: {"image": rng.integers(0, 256, shape).astype(np.uint8)}


CASES = [
    Case("Cast is the first reader", cast_first, before="ok", feeds=pixels(1, 3, 4, 4), changes=False),
    Case("channels last, permuted before the Cast", decoded, before="reject", feeds=pixels(2, 8, 9, 3)),
    Case("resized and cropped, also as output", resized, before="reject", feeds=pixels(1, 3, 4, 4)),
]
