import numpy as np
import pytest
import torch
import torchvision

from components.core.tasks.detection import drop_padding
from components.export.canonical_detector import CandidateCounts
from components.export.canonical_faster_rcnn import CanonicalFasterRCNN
from components.export.canonical_tail import DROPPED
from components.export.onnx_export import StockDetector, export_onnx
from components.export.parity import compare, run_onnx
from fixtures.detectors import photograph, tiny_faster_rcnn


def batch(seed: int, height: int, width: int) -> torch.Tensor:
    return torch.from_numpy(photograph(seed, height, width).transpose(2, 0, 1)[None].astype(np.float32) / 255)


def detections(outputs):
    return drop_padding(*(part.numpy() for part in outputs))


@pytest.mark.parametrize(
    ("classes", "image_size", "shape"),
    [
        (2, 96, (96, 96)),  # no resize, no padding
        (2, 64, (96, 128)),  # shrunk, padded to a multiple of 32
        (5, 96, (96, 96)),  # more classes: boxes of one class must not suppress another's
        (3, 120, (80, 104)),  # enlarged, odd sizes
    ],
)
def test_finds_what_the_eager_model_finds(classes, image_size, shape):
    model = tiny_faster_rcnn(classes, image_size)
    canonical = CanonicalFasterRCNN(model, *shape)
    with torch.inference_mode():
        images = [batch(seed, *shape) for seed in range(4)]
        expected = [detections(StockDetector(model)(image)) for image in images]
        found = [detections(canonical(image)) for image in images]
    parity = compare(expected, found)
    assert parity.detections > 20, "the model must find something for the comparison to mean anything"
    assert parity.matched == parity.detections
    assert [len(one.scores) for one in found] == [len(one.scores) for one in expected]


@pytest.mark.parametrize("sampling_ratio", [1, 2, 3])
def test_agrees_for_every_fixed_sampling_ratio(sampling_ratio):
    pool = torchvision.ops.MultiScaleRoIAlign(["0", "1", "2"], 5, sampling_ratio, canonical_scale=24, canonical_level=3)
    model = tiny_faster_rcnn(box_roi_pool=pool)
    image = batch(1, 96, 96)
    with torch.inference_mode():
        parity = compare(
            [detections(StockDetector(model)(image))], [detections(CanonicalFasterRCNN(model, 96, 96)(image))]
        )
    assert parity.matched == parity.detections > 0


def test_agrees_for_the_torchvision_model_with_a_pooled_level():
    torch.manual_seed(0)
    model = torchvision.models.detection.fasterrcnn_mobilenet_v3_large_320_fpn(
        weights=None, weights_backbone=None, num_classes=4, box_score_thresh=0.2
    ).eval()
    image = batch(2, 160, 224)
    with torch.inference_mode():
        expected = detections(StockDetector(model)(image))
        found = detections(CanonicalFasterRCNN(model, 160, 224)(image))
    assert len(expected.scores) == len(found.scores) > 0
    # Untrained scores are all alike, so the order is arbitrary; as a set they must agree.
    np.testing.assert_allclose(np.sort(found.scores), np.sort(expected.scores), atol=1e-4)


def test_exported_graph_agrees_and_is_static(tmp_path):
    import onnx

    model = tiny_faster_rcnn()
    canonical = CanonicalFasterRCNN(model, 96, 96)
    path = tmp_path / "canonical.onnx"
    export_onnx(canonical, batch(0, 96, 96), path)
    graph = onnx.load(path).graph
    operators = [node.op_type for node in graph.node]
    assert operators.count("RoiAlign") == 1
    assert operators.count("NonMaxSuppression") == 4
    assert not {"NonZero", "If", "Loop"} & set(operators)
    assert [[d.dim_value for d in o.type.tensor_type.shape.dim] for o in graph.output] == [[30, 4], [30], [30]]
    images = [batch(seed, 96, 96) for seed in range(3, 6)]
    with torch.inference_mode():
        expected = [detections(StockDetector(model)(image)) for image in images]
    parity = compare(expected, run_onnx(path, [image.numpy() for image in images]))
    assert parity.matched == parity.detections > 20


def test_fewer_candidates_are_a_prefix_of_the_work():
    canonical = CanonicalFasterRCNN(tiny_faster_rcnn(), 96, 96)
    image = batch(0, 96, 96)
    with torch.inference_mode():
        features = canonical.features(image)
        _, all_scores, _ = canonical.detect(features, canonical.counts)
        _, few_scores, _ = canonical.detect(features, CandidateCounts(per_level=20, proposals=10))
    assert 0 < (few_scores > DROPPED).sum() <= min(10, int((all_scores > DROPPED).sum()) + 10)
