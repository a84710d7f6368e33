"""Row 12: NonMaxSuppression."""

import numpy as np
import torch
import torchvision
from onnx import helper
from surgery_cases import Case
from surgery_graphs import FLOAT, INT64, export, make_model
from torch import nn

COUNT = 48


class KeepMask(nn.Module):
    def forward(self, boxes, scores):
        keep = torchvision.ops.nms(boxes, scores, 0.5)
        return scores * torch.zeros(COUNT).scatter(0, keep, 1.0)


class KeptBoxes(nn.Module):
    def forward(self, boxes, scores):
        keep = torchvision.ops.nms(boxes, scores, 0.5)
        return boxes[keep], scores[keep]


def boxes_of(rng, *leading):
    centre, size = rng.uniform(0, 60, (*leading, COUNT, 2)), rng.uniform(5, 40, (*leading, COUNT, 2))
    return np.concatenate([centre - size / 2, centre + size / 2], -1).astype(np.float32)


def feeds(rng):
    return {"boxes": boxes_of(rng), "scores": rng.permutation(COUNT).astype(np.float32) / COUNT}


def classes(centre):
    """Two images of three classes; the selected triples are the output."""
    node = helper.make_node(
        "NonMaxSuppression", ["boxes", "scores", "most", "iou", "least"], ["selected"], center_point_box=centre
    )
    constants = {"most": np.array([5]), "iou": np.array([0.4], np.float32), "least": np.array([0.2], np.float32)}
    inputs = {"boxes": (FLOAT, [2, COUNT, 4]), "scores": (FLOAT, [2, 3, COUNT])}
    return make_model([node], inputs, {"selected": (INT64, ["n", 3])}, constants)


def class_feeds(rng, *, centre):
    boxes = boxes_of(rng, 2)
    if centre:
        boxes = np.concatenate([(boxes[..., :2] + boxes[..., 2:]) / 2, boxes[..., 2:] - boxes[..., :2]], -1)
    return {"boxes": boxes, "scores": rng.random((2, 3, COUNT)).astype(np.float32)}


def traced(module):
    return export(module, torch.rand(COUNT, 4), torch.rand(COUNT), input_names=["boxes", "scores"])


CASES = [
    Case("keep-mask of a detector's tail", lambda: traced(KeepMask()), before="build", feeds=feeds),
    Case("kept boxes are outputs", lambda: traced(KeptBoxes()), before="build", feeds=feeds),
    Case(
        "batch and classes, corners",
        lambda: classes(0),
        before="build",
        feeds=lambda rng: class_feeds(rng, centre=False),
    ),
    Case(
        "batch and classes, centre and size",
        lambda: classes(1),
        before="build",
        feeds=lambda rng: class_feeds(rng, centre=True),
    ),
]
