"""Row 45: MaxRoiPool."""

import numpy as np
import torch
import torchvision
from onnx import helper
from surgery_cases import Case
from surgery_graphs import FLOAT, export, make_model
from torch import nn


class Pooled(nn.Module):
    def forward(self, x, rois):
        return torchvision.ops.roi_pool(x, rois, (7, 7), 0.25)


def boxes(rng, count, images, height, width):
    """Boxes of all sizes; some reach out of the image."""
    corner = rng.uniform(-10, [width, height], (count, 2))
    size = rng.uniform(0, [width, height], (count, 2))
    image = rng.integers(0, images, (count, 1))
    return np.concatenate([image, corner, corner + size], 1).astype(np.float32)


def exported():
    rois = torch.from_numpy(boxes(np.random.default_rng(0), 20, 1, 96, 128))
    return export(Pooled(), torch.rand(1, 8, 24, 32), rois, input_names=["x", "rois"])


def pooled():
    node = helper.make_node("MaxRoiPool", ["x", "rois"], ["y"], name="pool", pooled_shape=[3, 5])
    inputs = {"x": (FLOAT, [2, 4, 13, 9]), "rois": (FLOAT, ["r", 5])}
    return make_model([node], inputs, {"y": (FLOAT, list("abcd"))})


def feeds(rng, shape, scale):
    count = rng.integers(1, 40) if scale == 1 else 20
    rois = boxes(rng, count, shape[0], scale * shape[2], scale * shape[3])
    return {"x": rng.standard_normal(shape).astype(np.float32), "rois": rois}


CASES = [
    Case("torchvision", exported, before="reject", feeds=lambda rng: feeds(rng, (1, 8, 24, 32), 4)),
    Case("two images, open number of boxes", pooled, before="reject", feeds=lambda rng: feeds(rng, (2, 4, 13, 9), 1)),
]
