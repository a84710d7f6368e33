import itertools
import json

import pytest
import torch

from fixtures.detectors import photograph, tiny_faster_rcnn
from pipelines.samples.training import Recipe, random_crops, train_detector, warmup_cosine, write_provenance

RECIPE = Recipe(iterations=6, crop=64, batch=2, warmup=2, min_side=4)


def samples():
    image = torch.from_numpy(photograph(1, 128, 160).copy()).permute(2, 0, 1)
    boxes = torch.tensor([[10.0, 10, 50, 50], [60, 30, 100, 90], [100, 60, 150, 120]])
    return [(image, boxes, torch.ones(3, dtype=torch.int64))]


def test_training_moves_the_weights_and_is_the_same_for_one_seed():
    before = tiny_faster_rcnn().state_dict()
    lines: list[str] = []
    first, second = (train_detector(tiny_faster_rcnn(), samples(), RECIPE, lines.append).state_dict() for _ in range(2))
    assert any(not torch.equal(before[name], first[name]) for name in before)
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert lines[0].startswith("step 6/6 loss ")


def test_crops_have_boxes_inside_and_one_size():
    images, targets = next(random_crops(samples(), RECIPE))
    assert [tuple(image.shape) for image in images] == [(3, 64, 64)] * 2
    for image, target in zip(images, targets, strict=True):
        assert 0 <= float(image.min()) <= float(image.max()) <= 1
        boxes = target["boxes"]
        assert len(boxes) == len(target["labels"])
        assert ((boxes >= 0) & (boxes <= 64)).all()
        assert ((boxes[:, 2:] - boxes[:, :2]) >= 4).all()


def test_the_learning_rate_warms_up_and_decays():
    recipe = Recipe(iterations=100, crop=64, warmup=10)
    factors = [warmup_cosine(step, recipe) for step in range(101)]
    assert factors[0] == pytest.approx(0.1)
    assert factors[10] == pytest.approx(1.0)
    assert factors[100] == pytest.approx(0.01)
    assert all(later <= earlier for earlier, later in itertools.pairwise(factors[10:]))


def test_provenance_says_how_to_make_the_checkpoint_again(tmp_path):
    write_provenance(tmp_path / "p.json", RECIPE, sha256="ab")
    written = json.loads((tmp_path / "p.json").read_text())
    assert written["recipe"]["seed"] == RECIPE.seed
    assert written["sha256"] == "ab"
    assert written["versions"]["torch"] == torch.__version__
