"""Row 39: DeformConv."""

import torch
import torchvision
from onnx import helper
from surgery_cases import Case
from surgery_graphs import FLOAT, make_model
from torch import nn


class Deformed(nn.Module):
    """As DCNv2 has it: offsets and mask from a Conv of the features."""

    def __init__(self, *, groups, offset_groups, stride):
        super().__init__()
        self.places = 9 * offset_groups
        self.guide = nn.Conv2d(8, 3 * self.places, 3, stride, 1)
        self.conv = torchvision.ops.DeformConv2d(8, 6, 3, stride, 1, groups=groups)

    def forward(self, x):
        guide = self.guide(x)
        return self.conv(x, 3 * guide[:, : 2 * self.places], guide[:, 2 * self.places :].sigmoid())


def exported(shape, *, groups=1, offset_groups=1, stride=1, **options):
    torch.manual_seed(0)
    module = Deformed(groups=groups, offset_groups=offset_groups, stride=stride).eval()
    return torch.onnx.export(
        module, (torch.rand(shape),), dynamo=True, verbose=False, opset_version=20, **options
    ).model_proto


def plain():
    """Without mask and bias, uneven kernel and strides, offsets as an input."""
    attributes = {"kernel_shape": [2, 3], "strides": [2, 1], "dilations": [1, 2], "pads": [1, 0, 0, 2]}
    node = helper.make_node("DeformConv", ["x", "w", "offset"], ["y"], name="deform", offset_group=2, **attributes)
    torch.manual_seed(0)
    inputs = {"x": (FLOAT, ["n", 4, 9, 10]), "offset": (FLOAT, ["n", 24, 5, 8])}
    return make_model([node], inputs, {"y": (FLOAT, list("abcd"))}, {"w": torch.rand(6, 4, 2, 3).numpy()}, opset=19)


CASES = [
    Case("torchvision, DCNv2", lambda: exported((1, 8, 20, 33)), before="reject"),
    Case(
        "torchvision, groups and offset groups, stride 2",
        lambda: exported((2, 8, 17, 16), groups=2, offset_groups=4, stride=2),
        before="reject",
    ),
    Case("torchvision, open batch", lambda: exported((2, 8, 12, 12), dynamic_shapes=({0: "n"},)), before="reject"),
    Case("no mask, no bias, uneven", plain, before="reject"),
]
