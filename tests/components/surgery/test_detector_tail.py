"""The idioms together, as the export of a detector writes them: a pyramid, NMS as a mask, RoIs of all levels."""

import numpy as np
import pytest
import torch
import torchvision
from surgery_graphs import export, needs_rtx, ops, rtx, surgered
from torch import nn
from torch.nn import functional

from components.core.contracts.job import Runtime
from components.surgery.evaluate import Model
from components.surgery.operate import operate
from components.surgery.surgeries.row12_non_max_suppression import fixed_point_probe
from components.surgery.surgery import TOLERANCE

SIDE, PROPOSALS = 64, 40


class Detector(nn.Module):
    """Three levels of features, 40 proposals after NMS, pooled from the level of their size, and a score each."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.stem = nn.Conv2d(3, 8, 3, 4, 1)
        self.downs = nn.ModuleList(nn.Conv2d(8, 8, 3, 2, 1) for _ in range(2))
        self.objectness, self.deltas = nn.Conv2d(8, 1, 1), nn.Conv2d(8, 4, 1)
        self.head = nn.Linear(8 * 25, 3)

    def forward(self, image):
        levels = [torch.relu(self.stem(image))]
        for down in self.downs:
            levels.append(torch.relu(down(levels[-1])))
        boxes, logits = zip(*[self.propose(level) for level in levels], strict=True)
        boxes, scores = torch.cat(boxes), torch.cat(logits).sigmoid()
        scores, best = scores.topk(3 * PROPOSALS)
        boxes = boxes[best]
        keep = torchvision.ops.nms(boxes, scores, 0.5)
        mask = torch.zeros_like(scores).scatter(0, keep, 1.0)
        scores, best = torch.where(mask > 0, scores, -1.0).topk(PROPOSALS)
        boxes = boxes[best]
        size = levels[0].shape[-1]
        padded = torch.cat([functional.pad(x, (0, size - x.shape[-1], 0, size - x.shape[-1])) for x in levels])
        area = (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])
        level = (area > 200).long() + (area > 800).long()
        scale = torch.tensor([0.25, 0.125, 0.0625])[level].unsqueeze(1)
        rois = torch.cat([level.to(boxes.dtype).unsqueeze(1), boxes * scale], 1)
        pooled = torchvision.ops.roi_align(padded, rois, 5, 1.0, 2)
        return boxes, scores, self.head(pooled.flatten(1)).softmax(-1)

    def propose(self, level):
        height, width = level.shape[-2:]
        y, x = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
        centre = torch.stack([x, y], -1).reshape(-1, 2) * (SIDE / width)
        grown = self.deltas(level).reshape(4, -1).permute(1, 0).exp() * (0.5 * SIDE / width)
        boxes = torch.cat([centre - grown[:, :2], centre + grown[:, 2:]], 1).clamp(0, SIDE)
        return boxes, self.objectness(level).flatten()


@pytest.fixture(scope="module")
def detector():
    image = torch.rand(1, 3, SIDE, SIDE)
    names = ["boxes", "scores", "classes"]
    before = export(Detector(), image, input_names=["image"], output_names=names)
    return before, surgered(before)


def images():
    rng = np.random.default_rng(5)
    for _ in range(5):
        coarse = rng.random((1, 3, 8, 8)).repeat(8, 2).repeat(8, 3)
        yield {"image": (coarse + 0.1 * rng.random(coarse.shape)).astype(np.float32)}


def test_the_tail_is_plain_static_operators(detector):
    before, after = detector
    assert {"NonMaxSuppression", "RoiAlign"} <= ops(before)
    assert {"NonMaxSuppression", "RoiAlign", "NonZero", "If", "Loop", "ScatterElements", "Shape"}.isdisjoint(ops(after))
    assert all(
        size.HasField("dim_value") for value in after.graph.value_info for size in value.type.tensor_type.shape.dim
    )


def test_detections_are_equal_on_images(detector):
    before, after = Model(detector[0]), Model(fixed_point_probe(detector[1]))
    for feed in images():
        old, new = before(feed), after(feed)
        np.testing.assert_array_equal(new["boxes"], old["boxes"])
        np.testing.assert_array_equal(new["scores"], old["scores"])
        np.testing.assert_allclose(new["classes"], old["classes"], atol=TOLERANCE)
        assert [value for name, value in new.items() if name.endswith("/unsettled")] == [0]


def test_every_replacement_was_proven_on_real_activations(detector):
    report = operate(detector[0], Runtime.TENSORRT)[1]
    proven = {record.row: record.max_error for record in report.done}
    assert proven[12] == 0
    assert 0 <= proven[14] < TOLERANCE
    assert report.left == []
    assert set(report.end_to_end) == {"boxes", "scores", "classes"}
    assert report.seconds < 60


@needs_rtx
def test_tensorrt_takes_the_tail_only_after_surgery(detector):
    before, after = detector
    assert rtx(before).stage == "reject"
    assert rtx(after)[::2] == ("ok", 0)


def test_cpu_runtimes_keep_the_native_tail_and_lose_the_shape_arithmetic(detector):
    for runtime in (Runtime.ONNXRUNTIME, Runtime.OPENVINO):
        after = surgered(detector[0], runtime)
        assert {"NonMaxSuppression", "RoiAlign"} <= ops(after)
        assert len(after.graph.node) < len(detector[0].graph.node) / 2
        for feed in images():
            for name, value in Model(detector[0])(feed).items():
                np.testing.assert_array_equal(Model(after)(feed)[name], value)
