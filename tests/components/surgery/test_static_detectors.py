"""Stock torchvision detectors, exported with their own data-dependent tail, become one static graph each."""

from collections import OrderedDict

import numpy as np
import pytest
import torch
from surgery_graphs import export, needs_rtx, ops, rtx
from torch import nn
from torchvision.models.detection import FCOS, FasterRCNN, RetinaNet
from torchvision.models.detection.anchor_utils import AnchorGenerator, DefaultBoxGenerator
from torchvision.models.detection.ssd import SSD
from torchvision.ops import MultiScaleRoIAlign

from components.core.contracts.job import Runtime
from components.core.tasks.detection import drop_padding
from components.surgery.evaluate import Model
from components.surgery.operate import operate
from components.surgery.surgeries.row12_non_max_suppression import fixed_point_probe
from components.surgery.surgery import Outcome

SIDE, CLASSES, WIDTH = 96, 3, 32
RESIZING = {"min_size": SIDE, "max_size": SIDE}
DYNAMIC = {"NonZero", "If", "NonMaxSuppression", "RoiAlign", "Loop", "Range", "Shape"}


class Backbone(nn.Module):
    """Two levels of features, at 1/8 and 1/16 of the image."""

    def __init__(self, out_channels=WIDTH):
        super().__init__()
        self.out_channels = out_channels
        self.stem = nn.Sequential(nn.Conv2d(3, 8, 3, 4, 1), nn.ReLU(), nn.Conv2d(8, WIDTH, 3, 2, 1), nn.ReLU())
        self.down = nn.Sequential(nn.Conv2d(WIDTH, WIDTH, 3, 2, 1), nn.ReLU())

    def forward(self, image):
        first = self.stem(image)
        return OrderedDict([("0", first), ("1", self.down(first))])


def anchors(ratios=(0.5, 1.0)):
    return AnchorGenerator(((16,), (40,)), (ratios, ratios))


def faster_rcnn():
    # The pyramid's levels follow from the size of a box relative to 224 pixels, so that small images use one only.
    pool = MultiScaleRoIAlign(["0", "1"], output_size=5, sampling_ratio=2, canonical_scale=24, canonical_level=4)
    return FasterRCNN(
        Backbone(),
        CLASSES,
        rpn_anchor_generator=anchors(),
        box_roi_pool=pool,
        rpn_pre_nms_top_n_test=60,
        rpn_post_nms_top_n_test=30,
        box_score_thresh=0.42,
        box_detections_per_img=20,
        **RESIZING,
    )


def retinanet():
    return RetinaNet(
        Backbone(),
        CLASSES,
        anchor_generator=anchors(),
        score_thresh=0.9,
        detections_per_img=20,
        topk_candidates=50,
        **RESIZING,
    )


def fcos():
    generator = AnchorGenerator(((8,), (16,)), ((1.0,), (1.0,)))
    return FCOS(
        Backbone(),
        CLASSES,
        anchor_generator=generator,
        score_thresh=0.68,
        detections_per_img=20,
        topk_candidates=50,
        **RESIZING,
    )


def ssd():
    boxes = DefaultBoxGenerator([[2], [2]], scales=[0.2, 0.5, 0.9], steps=[8, 16])
    return SSD(
        Backbone([WIDTH, WIDTH]),
        boxes,
        (SIDE, SIDE),
        CLASSES,
        score_thresh=0.65,
        detections_per_img=20,
        topk_candidates=40,
    )


class OneImage(nn.Module):
    def __init__(self, model):
        super().__init__()
        self.model = model

    def forward(self, image):
        found = self.model([image[0]])[0]
        return found["boxes"], found["scores"], found["labels"]


def images():
    rng = np.random.default_rng(3)
    for side in (2, 4, 8, 16):
        coarse = rng.random((1, 3, SIDE // side, SIDE // side)).repeat(side, 2).repeat(side, 3)
        yield {"image": coarse.astype(np.float32)}


def wild(model):
    """Random weights, larger than those that training begins with: scores all over 0..1 and boxes of all sizes."""
    torch.manual_seed(1)
    for name, parameter in model.named_parameters():
        if parameter.dim() > 1:
            nn.init.kaiming_normal_(parameter)
        else:  # a bias, or the scale of a normalization
            nn.init.constant_(parameter, float(name.endswith("weight")))
        if any(part in name for part in ("bbox", "regression", "head.classification_head.module_list")):
            parameter.data *= 0.3
    return model.eval()


def exported(build, opset):
    options = {
        "input_names": ["image"],
        "output_names": ["boxes", "scores", "labels"],
        "dynamic_axes": {name: {0: "detections"} for name in ("boxes", "scores", "labels")},
    }
    image = torch.from_numpy(next(images())["image"])
    return export(OneImage(wild(build())), image, opset=opset, **options)


BUILDS = [(faster_rcnn, 17), (faster_rcnn, 11), (retinanet, 17), (fcos, 17), (ssd, 17)]


@pytest.fixture(scope="module", params=BUILDS, ids=lambda build: f"{build[0].__name__}-{build[1]}")
def detector(request):
    before = exported(*request.param)
    return before, *operate(before, Runtime.TENSORRT_RTX)


def test_nothing_depends_on_data_any_more(detector):
    before, after, report = detector
    assert {"NonZero", "If"} <= ops(before)
    assert DYNAMIC.isdisjoint(ops(after))
    assert all(
        size.HasField("dim_value") for value in after.graph.value_info for size in value.type.tensor_type.shape.dim
    )
    assert [node.op_type for node in after.graph.node].count("GridSample") == ("RoiAlign" in ops(before))
    assert report.left == []
    assert not any(record.outcome is Outcome.ROLLED_BACK for record in report.records)
    assert operate(after, Runtime.TENSORRT_RTX)[1].done == []


def test_detections_are_those_of_the_stock_model(detector):
    before, after = Model(detector[0]), Model(fixed_point_probe(detector[1]))
    counts = []
    for feed in images():
        old, new = before(feed), after(feed)
        found = drop_padding(new["boxes"], new["scores"], new["labels"])
        counts.append(len(found.scores))
        assert new["boxes_rows"].tolist() == [len(old["scores"])]
        np.testing.assert_array_equal(found.labels, old["labels"])
        np.testing.assert_allclose(found.scores, old["scores"], atol=1e-5)
        np.testing.assert_allclose(found.boxes, old["boxes"], atol=1e-3)
        assert all(value == 0 for name, value in new.items() if name.endswith("/unsettled"))
    assert max(counts) > 3
    assert len(set(counts)) > 1


@needs_rtx
def test_tensorrt_builds_it_without_a_plugin(detector):
    assert rtx(detector[0]).stage == "reject"
    assert rtx(detector[1])[::2] == ("ok", 0)


class Batch(nn.Module):
    """The detections of each image, one after the other, as an application reads them."""

    def __init__(self, model):
        super().__init__()
        self.model = model

    def forward(self, image):
        return tuple(found[name] for found in self.model(list(image)) for name in ("boxes", "scores", "labels"))


@pytest.fixture(scope="module", params=[2, 3], ids=lambda size: f"{size} images")
def batch(request):
    size = request.param
    names = [f"{name}{number}" for number in range(size) for name in ("boxes", "scores", "labels")]
    options = {
        "input_names": ["image"],
        "output_names": names,
        "dynamic_axes": {name: {0: f"detections of {name}"} for name in names},
    }
    given = np.concatenate([feed["image"] for feed in images()][:size])
    before = export(Batch(wild(faster_rcnn())), torch.from_numpy(given), opset=17, **options)
    return size, before, *operate(before, Runtime.TENSORRT_RTX)


def test_every_image_of_a_batch_has_the_detections_of_the_stock_model(batch):
    size, before, after, report = batch
    assert report.left == []
    assert DYNAMIC.isdisjoint(ops(after))
    old_model, new_model = Model(before), Model(fixed_point_probe(after))
    given = [feed["image"] for feed in images()]
    counts = set()
    for shift in range(2):
        feed = {"image": np.concatenate([given[(shift + number) % len(given)] for number in range(size)])}
        old, new = old_model(feed), new_model(feed)
        for number in range(size):
            boxes, scores, labels = (f"{name}{number}" for name in ("boxes", "scores", "labels"))
            found = drop_padding(new[boxes], new[scores], new[labels])
            counts.add(len(found.scores))
            np.testing.assert_array_equal(found.labels, old[labels])
            np.testing.assert_allclose(found.scores, old[scores], atol=1e-5)
            np.testing.assert_allclose(found.boxes, old[boxes], atol=1e-3)
        assert all(value == 0 for name, value in new.items() if name.endswith("/unsettled"))
    assert max(counts) > 3
    assert len(counts) > 1


@needs_rtx
def test_tensorrt_builds_a_batch_without_a_plugin(batch):
    assert rtx(batch[1]).stage == "reject"
    assert rtx(batch[2])[::2] == ("ok", 0)


def test_a_detector_that_finds_nothing_returns_padding_only():
    before = exported(nothing, 17)
    after, report = operate(before, Runtime.TENSORRT_RTX)
    assert report.left == []
    feed = next(images())
    assert len(Model(before)(feed)["scores"]) == 0
    new = Model(after)(feed)
    assert new["boxes_rows"].tolist() == [0]
    assert (new["scores"] == -1).all()


def nothing():
    model = retinanet()
    model.score_thresh = 1.5
    return model


def test_cpu_runtimes_keep_the_native_tail():
    before = exported(ssd, 17)
    for runtime in (Runtime.ONNXRUNTIME, Runtime.OPENVINO):
        after, _ = operate(before, runtime)
        assert {"NonZero", "If"} <= ops(after)
