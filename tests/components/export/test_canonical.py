from collections import Counter

import numpy as np
import onnx
import pytest
import torch
import torchvision
from torch import nn
from torchvision.models.detection import RetinaNet
from torchvision.models.detection.anchor_utils import AnchorGenerator

from components.core.errors import StepError
from components.core.tasks.detection import drop_padding
from components.export.canonical import canonical, unsupported
from components.export.canonical_detector import CandidateCounts, resized_size
from components.export.onnx_export import StockDetector, export_onnx
from components.export.parity import compare, run_onnx
from fixtures.detectors import photograph, tiny_faster_rcnn, tiny_fcos, tiny_retinanet, tiny_ssd

DENSE = [tiny_retinanet, tiny_fcos]
ALL = [tiny_faster_rcnn, *DENSE, tiny_ssd]


def batch(seed: int, height: int, width: int) -> torch.Tensor:
    return torch.from_numpy(photograph(seed, height, width).transpose(2, 0, 1)[None].astype(np.float32) / 255)


def detections(outputs):
    return drop_padding(*(part.numpy() for part in outputs))


@pytest.mark.parametrize("make", [*DENSE, tiny_ssd])
@pytest.mark.parametrize(
    ("classes", "image_size", "shape", "options"),
    [
        (2, 96, (96, 96), {}),  # no resize, no padding
        (3, 64, (96, 128), {"score_thresh": 0.7}),  # shrunk, padded; fewer detections than there is room for
        (5, 120, (80, 104), {"nms_thresh": 0.2}),  # enlarged, odd sizes; much is suppressed
        (3, 96, (96, 96), {"topk_candidates": 20, "detections_per_img": 15}),  # both limits cut
        (3, 96, (96, 96), {"topk_candidates": 10_000}),  # more than there are
    ],
)
def test_finds_what_the_eager_model_finds(make, classes, image_size, shape, options):
    model = make(classes, image_size, **options)
    detector = canonical(model, *shape)
    with torch.inference_mode():
        images = [batch(seed, *shape) for seed in range(4)]
        expected = [detections(StockDetector(model)(image)) for image in images]
        found = [detections(detector(image)) for image in images]
    parity = compare(expected, found)
    assert parity.detections > 10, "the model must find something for the comparison to mean anything"
    assert parity.matched == parity.detections
    assert [len(one.scores) for one in found] == [len(one.scores) for one in expected]
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_allclose(one.scores, other.scores, atol=1e-5, err_msg="best first, as torchvision's")


@pytest.mark.parametrize("make", ALL)
def test_exported_graph_agrees_and_is_static(make, tmp_path):
    model, path = make(), tmp_path / "canonical.onnx"
    export_onnx(canonical(model, 96, 96), batch(0, 96, 96), path)
    graph = onnx.load(path).graph
    operators = Counter(node.op_type for node in graph.node)
    assert operators["NonMaxSuppression"] == (4 if make is tiny_faster_rcnn else 1)
    assert not {"NonZero", "If", "Loop"} & operators.keys()
    most = 30 if make is tiny_faster_rcnn else 40
    shapes = [[d.dim_value for d in output.type.tensor_type.shape.dim] for output in graph.output]
    assert shapes == [[most, 4], [most], [most]]
    images = [batch(seed, 96, 96) for seed in range(3, 6)]
    with torch.inference_mode():
        expected = [detections(StockDetector(model)(image)) for image in images]
    parity = compare(expected, run_onnx(path, [image.numpy() for image in images]))
    assert parity.matched == parity.detections > 20


@pytest.mark.parametrize("make", ALL)
def test_fewer_candidates_are_fewer_and_still_detections(make):
    detector = canonical(make(topk_candidates=1000) if make is not tiny_faster_rcnn else make(), 96, 96)
    image = batch(0, 96, 96)
    with torch.inference_mode():
        features = detector.features(image)
        own = detections(detector.detect(features, detector.counts))
        few = detections(detector.detect(features, CandidateCounts(10, 12)))
    assert 0 < len(few.scores) < len(own.scores)


@pytest.mark.parametrize("make", [*DENSE, tiny_ssd])
def test_the_steps_that_are_tried_go_down_from_the_models_own(make):
    counts = [c for d in [canonical(make(topk_candidates=1000), 160, 160)] for c in (d.counts, *d.fewer())]
    assert len(counts) > 1
    assert counts == sorted(counts, key=lambda one: -one.proposals)
    assert all(one.per_level <= counts[0].per_level for one in counts)


def test_a_ssdlite_of_torchvision_agrees():
    torch.manual_seed(0)
    model = torchvision.models.detection.ssdlite320_mobilenet_v3_large(
        weights=None, weights_backbone=None, num_classes=4, score_thresh=0.2
    ).eval()
    image = batch(2, 160, 224)
    with torch.inference_mode():
        expected = detections(StockDetector(model)(image))
        found = detections(canonical(model, 160, 224)(image))
    assert len(expected.scores) == len(found.scores) > 0
    np.testing.assert_allclose(found.scores, expected.scores, atol=1e-5)


class OwnInit(RetinaNet):
    """What most users' subclasses are: other parts, the same arithmetic."""

    def __init__(self):
        given = tiny_retinanet()
        super().__init__(given.backbone, 3, anchor_generator=given.anchor_generator)


class OwnTail(OwnInit):
    def postprocess_detections(self, *arguments):
        return super().postprocess_detections(*arguments)[:1]


class OwnCoder(OwnInit):
    def __init__(self):
        super().__init__()
        self.box_coder = object()


def test_a_subclass_is_taken_where_its_arithmetic_is_torchvisions():
    assert unsupported(OwnInit()) is None
    assert "postprocess_detections of its own" in unsupported(OwnTail())
    assert "its box_coder is object, not BoxCoder" in unsupported(OwnCoder())


def test_mask_and_keypoint_rcnn_are_not_taken_for_faster_rcnn():
    for name in ("mask", "keypoint"):
        make = getattr(torchvision.models.detection, f"{name}rcnn_resnet50_fpn")
        reason = unsupported(make(weights=None, weights_backbone=None))
        assert f"it also predicts {name}s" in reason
    with pytest.raises(StepError, match="Identity has no static re-expression"):
        canonical(nn.Identity(), 96, 96)


def test_resized_size_is_torchvisions_own():
    transform = tiny_faster_rcnn(image_size=320).transform
    assert resized_size(transform, 480, 640) == (320, 426)
    assert resized_size(transform, 320, 320) == (320, 320)
    assert resized_size(tiny_ssd(image_size=64).transform, 480, 640) == (64, 64)


def test_a_backbone_that_returns_one_tensor_will_do():
    body = nn.Sequential(nn.Conv2d(3, 8, 3, 8, 1), nn.ReLU())
    body.out_channels = 8
    torch.manual_seed(0)
    model = RetinaNet(body, 2, 64, 256, anchor_generator=AnchorGenerator(((16,),), ((1.0,),)), score_thresh=0.001)
    image = batch(1, 64, 64)
    with torch.inference_mode():
        parity = compare(
            [detections(StockDetector(model.eval())(image))], [detections(canonical(model, 64, 64)(image))]
        )
    assert parity.matched == parity.detections
