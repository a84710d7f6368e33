"""YOLO and EfficientDet: what is exported finds what the eager model finds, and becomes one engine without a plugin."""

import importlib.util
from collections import Counter

import numpy as np
import onnx
import pytest
import torch

from components.core.contracts.job import Runtime
from components.core.detectors.one_stage import OneStageDetector
from components.core.tasks.detection import Detections, drop_padding, per_image
from components.engine.build import build_engine
from components.export.canonical import canonical, unsupported
from components.export.onnx_export import StockDetector, export_onnx
from components.export.parity import compare, run_onnx
from components.int8.onnx_qdq import quantize_onnx
from components.surgery.operate import operate
from fixtures.detectors import photograph
from fixtures.family_detectors import ONE_STAGE, lively

RTX = Runtime.TENSORRT_RTX


def pictures(count: int, height: int, width: int) -> torch.Tensor:
    pixels = np.stack([photograph(seed, height, width).transpose(2, 0, 1) for seed in range(count)])
    return torch.from_numpy(pixels.astype(np.float32) / 255)


@pytest.mark.parametrize("name", ONE_STAGE)
@pytest.mark.parametrize(
    ("shape", "options"),
    [
        ((96, 120), {}),  # padded; fewer boxes than there is room for, or more
        ((128, 128), {"candidates": 60, "detections_per_img": 20}),  # both limits cut
        ((64, 96), {"score_thresh": 0.3, "nms_thresh": 0.3}),  # much is dropped and suppressed
    ],
)
def test_finds_what_the_eager_model_finds(name, shape, options):
    model = lively(name, *shape)
    for option, value in options.items():
        setattr(model, option, value)
    detector = canonical(model, *shape)
    images = pictures(3, *shape)
    for batch in (images[:1], images):
        with torch.inference_mode():
            expected = per_image(len(batch), *(part.numpy() for part in StockDetector(model)(batch)))
            found = per_image(len(batch), *(part.numpy() for part in detector(batch)))
        assert [len(one.scores) for one in found] == [len(one.scores) for one in expected]
        # A box without an area overlaps nothing, not even itself.
        parity = compare([with_area(one) for one in expected], found)
        assert parity.matched == parity.detections > len(batch)


def with_area(found: Detections) -> Detections:
    kept = (found.boxes[:, 2:] - found.boxes[:, :2]).min(1) > 1
    return Detections(found.boxes[kept], found.scores[kept], found.labels[kept])


@pytest.mark.parametrize("name", ONE_STAGE)
def test_fewer_candidates_are_offered_and_taken(name):
    detector = canonical(lively(name), 128, 128)
    steps = [counts.proposals for counts in detector.fewer()]
    assert steps == sorted(steps, reverse=True)
    assert min(steps) >= 100
    detector.counts = detector.fewer()[-1]
    with torch.inference_mode():
        boxes, scores, _ = detector(pictures(1, 128, 128))
    assert boxes.shape == (100, 4)
    assert int((scores > 0).sum()) > 5


def test_a_tail_of_its_own_is_not_lost_without_a_word():
    class Softer(OneStageDetector):
        predict = losses = None

        def _found(self, boxes, scores, height, width):
            return {}

    Softer.__abstractmethods__ = frozenset()
    assert "has a _found of its own" in str(unsupported(Softer(1, 1, 32)))


@pytest.mark.skipif(importlib.util.find_spec("tensorrt_rtx") is None, reason="tensorrt_rtx is not installed")
@pytest.mark.parametrize("name", ["yolo9-t", "efficientdet-d0"])
@pytest.mark.slow
def test_one_engine_holds_the_whole_detector(name, tmp_path):
    model = lively(name)
    batches = [one[None].numpy() for one in pictures(3, 128, 128)]
    export_onnx(canonical(model, 128, 128), torch.from_numpy(batches[0]), tmp_path / "canonical.onnx")
    operated, _ = operate(onnx.load(tmp_path / "canonical.onnx"), RTX)
    onnx.save(operated, tmp_path / "operated.onnx")
    operators = Counter(node.op_type for node in operated.graph.node)
    assert not {"NonMaxSuppression", "NonZero", "If", "Loop", "Shape"} & operators.keys()
    with torch.inference_mode():
        expected = [drop_padding(*(p.numpy() for p in StockDetector(model)(torch.from_numpy(one)))) for one in batches]
    parity = compare(expected, run_onnx(tmp_path / "operated.onnx", batches))
    assert parity.matched >= 0.99 * parity.detections > 15

    quantize_onnx(tmp_path / "operated.onnx", tmp_path / "int8.onnx", RTX, batches, vnni=False)
    assert all(len(one.scores) for one in run_onnx(tmp_path / "int8.onnx", batches))
    for file in ("operated", "int8"):
        card = build_engine(RTX, tmp_path / f"{file}.onnx", tmp_path / f"{file}.engine", [], batches[0].shape, 300)
        assert card.plugins == 0
        assert {one.name: one.shape for one in card.outputs} == {"boxes": [100, 4], "scores": [100], "labels": [100]}
    assert "INT8" in card.precisions
