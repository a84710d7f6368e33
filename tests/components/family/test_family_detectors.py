import math

import pytest
import torch
from torchvision.ops import box_iou

from components.core.detectors.one_stage import OneStageDetector
from components.core.errors import StepError, UserError
from components.export.canonical import unsupported
from components.family.build import build
from components.family.catalogue import DETECTORS
from fixtures.family_detectors import FIRST_LABEL, ONE_STAGE, lively, squares

SMALLEST = [f"{family}-{sizes[0]}" for family, sizes in DETECTORS.items()]
NOTHING = {"boxes": torch.zeros(0, 4), "labels": torch.zeros(0, dtype=torch.int64)}


@pytest.mark.parametrize("name", SMALLEST)
def test_every_family_trains_and_detects_as_torchvision_does(name):
    torch.manual_seed(0)
    model = build(name, 2, 96, 80, FIRST_LABEL).train()
    images, targets = [torch.rand(3, 96, 80) for _ in range(2)], squares(1, 80)[1]
    losses = model(images, [*targets, NOTHING])
    assert all(math.isfinite(float(loss.detach())) for loss in losses.values())
    torch.stack(list(losses.values())).sum().backward()
    assert [key for key, value in model.named_parameters() if value.grad is None] == []
    assert sum(float(value.grad.abs().sum()) for value in model.parameters()) > 0
    found = model.eval()(images)
    assert unsupported(model) is None
    for one in found:
        assert one["boxes"].shape == (len(one["scores"]), 4) == (len(one["labels"]), 4)
        assert len(one["scores"]) <= 100
        assert set(one["labels"].tolist()) <= set(range(1, FIRST_LABEL + 2))


@pytest.mark.parametrize("name", ONE_STAGE)
def test_images_without_a_box_give_losses_too(name):
    losses = build(name, 2, 64, 64)([torch.rand(3, 64, 64)] * 2, [NOTHING] * 2)
    total = torch.stack(list(losses.values())).sum()
    total.backward()
    assert math.isfinite(float(total.detach()))


@pytest.mark.parametrize(
    ("name", "side", "steps", "rate", "least"),
    [
        ("yolox-n", 64, 60, 3e-3, 0.8),
        pytest.param("yolo9-t", 64, 60, 5e-3, 0.4, marks=pytest.mark.slow),
        pytest.param("efficientdet-d0", 128, 35, 3e-3, 0.5, marks=pytest.mark.slow),
    ],
)
def test_training_teaches_it_to_find_things(name, side, steps, rate, least):
    torch.manual_seed(0)
    model = build(name, 2, side, side, FIRST_LABEL)
    images, targets = squares(8, side)
    assert share_found(model, images, targets) < 0.2
    optimizer = torch.optim.AdamW(model.train().parameters(), lr=rate)
    for _ in range(steps):
        loss = torch.stack(list(model(images, targets).values())).sum()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert share_found(model, images, targets) >= least


def share_found(model, images, targets) -> float:
    """Share of the objects that a detection of the right label overlaps by half, among as many as there are objects."""
    hits = []
    with torch.inference_mode():
        for found, target in zip(model.eval()(images), targets, strict=True):
            most = len(target["labels"])
            overlap = box_iou(target["boxes"], found["boxes"][:most])
            overlap[target["labels"][:, None] != found["labels"][None, :most]] = 0
            hits += (overlap.max(1).values > 0.5).tolist() if overlap.shape[1] else [False] * most
    return sum(hits) / len(hits)


def test_detections_are_in_the_pixels_of_images_that_were_padded():
    model = lively("efficientdet-d0", 100, 90)
    assert model.divisor == 128
    with torch.inference_mode():
        (found,) = model([torch.rand(3, 100, 90)])
    assert len(found["scores"]) > 5
    assert float(found["boxes"][:, [0, 2]].max()) <= 90
    assert float(found["boxes"][:, [1, 3]].max()) <= 100
    assert min(found["labels"].tolist()) >= FIRST_LABEL
    assert found["scores"].tolist() == sorted(found["scores"].tolist(), reverse=True)


def test_a_batch_of_different_sizes_or_without_targets_is_refused():
    model = build("yolox-n", 1, 64, 64)
    with pytest.raises(StepError, match="images of one size"):
        model([torch.rand(3, 64, 64), torch.rand(3, 64, 32)], [NOTHING] * 2)
    with pytest.raises(StepError, match="needs targets"):
        model([torch.rand(3, 64, 64)])


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("yolo5-s", "no family 'yolo5'; accepted: yolo9"),
        ("yolo9-x", "no size 'x'; accepted: yolo9-t"),
        ("", "no family"),
    ],
)
def test_an_unknown_model_is_refused_with_what_there_is(name, words):
    with pytest.raises(UserError, match=words):
        build(name, 1, 64, 64)


def test_ssdlite_refuses_a_category_that_it_takes_for_background():
    with pytest.raises(UserError, match="label 0 for the background"):
        build("ssdlite-small", 1, 64, 64, first_label=0)


def test_batch_norms_are_quick_enough_for_short_trainings():
    for name in ONE_STAGE:
        model = build(name, 1, 64, 64)
        assert isinstance(model, OneStageDetector)
        momenta = {part.momentum for part in model.modules() if isinstance(part, torch.nn.BatchNorm2d)}
        assert momenta == {0.1}
