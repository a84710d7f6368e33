"""Row 14: RoiAlign."""

import numpy as np
import torch
import torchvision
from onnx import helper
from surgery_cases import Case
from surgery_graphs import FLOAT, INT64, export, make_model
from torch import nn

LEVELS = {"0": (24, 32), "1": (12, 16), "2": (6, 8)}


class Aligned(nn.Module):
    def __init__(self, *, aligned):
        super().__init__()
        self.aligned = aligned

    def forward(self, features, rois):
        return torchvision.ops.roi_align(features, rois, (7, 7), 0.25, 2, aligned=self.aligned)


def model(levels, *, half_pixel):
    node = helper.make_node(
        "RoiAlign",
        ["features", "rois", "image"],
        ["pooled"],
        output_height=5,
        output_width=7,
        sampling_ratio=2,
        spatial_scale=1.0,
        coordinate_transformation_mode="half_pixel" if half_pixel else "output_half_pixel",
    )
    given = {"features": (FLOAT, [levels, 4, 17, 23]), "rois": (FLOAT, [30, 4]), "image": (INT64, [30])}
    return make_model([node], given, {"pooled": (FLOAT, [30, 4, 5, 7])})


def boxes(rng, count, height, width):
    centre, size = rng.uniform(-2, max(height, width), (count, 2)), rng.uniform(0.1, max(height, width), (count, 2))
    return np.concatenate([centre - size / 2, centre + size / 2], 1).astype(np.float32)


def feeds(rng, levels):
    return {
        "features": rng.standard_normal((levels, 4, 17, 23)).astype(np.float32),
        "rois": boxes(rng, 30, 17, 23),
        "image": rng.integers(0, levels, 30),
    }


def traced(*, aligned):
    rois = torch.cat([torch.zeros(20, 1), torch.rand(20, 4).cumsum(1) * 20], 1)
    return export(Aligned(aligned=aligned), torch.rand(1, 8, 24, 32), rois, input_names=["features", "rois"])


def traced_feeds(rng):
    rois = np.concatenate([np.zeros((20, 1), np.float32), boxes(rng, 20, 96, 128)], 1)
    return {"features": rng.standard_normal((1, 8, 24, 32)).astype(np.float32), "rois": rois}


CASES = [
    Case("torchvision, aligned=False", lambda: traced(aligned=False), before="reject", feeds=traced_feeds),
    Case("torchvision, aligned=True", lambda: traced(aligned=True), before="reject", feeds=traced_feeds),
    Case(
        "three levels in one batch",
        lambda: model(3, half_pixel=False),
        before="reject",
        feeds=lambda rng: feeds(rng, 3),
    ),
    Case("half pixel", lambda: model(1, half_pixel=True), before="reject", feeds=lambda rng: feeds(rng, 1)),
]
