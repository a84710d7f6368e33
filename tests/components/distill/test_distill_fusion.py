"""Weighted boxes fusion, by hand and by what must hold of it; and pseudo-labels."""

import random

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from components.core.tasks.detection import Detections
from components.distill.fusion import fuse
from components.distill.pseudo import drawn


def found(*rows: tuple[list[float], float, int]) -> Detections:
    return Detections(
        np.array([box for box, _, _ in rows], np.float32).reshape(-1, 4),
        np.array([score for _, score, _ in rows], np.float32),
        np.array([label for _, _, label in rows], np.int64),
    )


def random_found(seed: int, count: int) -> Detections:
    draw = np.random.default_rng(seed)
    corners = draw.uniform(0, 80, (count, 2))
    boxes = np.concatenate([corners, corners + draw.uniform(5, 30, (count, 2))], axis=1)
    return Detections(
        boxes.astype(np.float32), draw.uniform(0, 1, count).astype(np.float32), draw.integers(1, 3, count)
    )


def test_two_teachers_that_agree_give_the_weighted_mean():
    fused = fuse([found(([0, 0, 10, 10], 0.9, 1)), found(([1, 1, 11, 11], 0.3, 1))], iou=0.55)
    assert fused.boxes.tolist() == pytest.approx(np.array([[0.25, 0.25, 10.25, 10.25]]), abs=1e-5)
    assert fused.scores.tolist() == pytest.approx([0.6])
    assert fused.labels.tolist() == [1]


def test_what_one_of_two_saw_counts_half():
    fused = fuse([found(([0, 0, 10, 10], 0.8, 1)), found(([50, 50, 60, 60], 0.9, 1))], iou=0.55)
    assert fused.scores.tolist() == pytest.approx([0.45, 0.4])
    assert fused.boxes[0].tolist() == [50, 50, 60, 60]


def test_other_labels_are_other_objects():
    fused = fuse([found(([0, 0, 10, 10], 0.8, 1)), found(([0, 0, 10, 10], 0.6, 2))], iou=0.55)
    assert sorted(fused.labels.tolist()) == [1, 2]


def test_one_teacher_is_left_alone_and_an_empty_image_is_empty():
    alone = random_found(1, 6)
    assert all(np.array_equal(*pair) for pair in zip(fuse([alone], 0.5), alone, strict=True))
    assert len(fuse([alone], 0.5, min_score=0.5).scores) == int((alone.scores >= 0.5).sum()) < 6
    nothing = found()
    assert fuse([nothing, nothing], 0.5).boxes.shape == (0, 4)


@given(st.integers(0, 10_000), st.integers(0, 12), st.integers(2, 4))
def test_fused_boxes_lie_within_and_scores_do_not_grow(seed, count, teachers):
    given_found = [random_found(seed + number, count) for number in range(teachers)]
    fused = fuse(given_found, iou=0.55)
    assert len(fused.scores) <= count * teachers
    assert (np.diff(fused.scores) <= 0).all()
    every = np.concatenate([one.boxes for one in given_found])
    if count:
        assert (fused.boxes >= every.min(axis=0) - 1e-3).all()
        assert (fused.boxes <= every.max(axis=0) + 1e-3).all()
        assert fused.scores.max() <= max(one.scores.max() for one in given_found) + 1e-6
    # Copies of a teacher whose boxes do not overlap change nothing.
    apart = Detections(
        np.array([[40.0 * n, 0, 40.0 * n + 20, 20] for n in range(count)], np.float32).reshape(-1, 4),
        np.linspace(0.9, 0.1, count, dtype=np.float32),
        np.ones(count, np.int64),
    )
    same = fuse([apart] * teachers, iou=0.55)
    assert np.allclose(same.boxes, apart.boxes, atol=1e-3)
    assert np.allclose(same.scores, apart.scores, atol=1e-5)


def test_pseudo_labels_are_drawn_as_often_as_the_teacher_is_sure():
    given_found = found(([0, 0, 10, 10], 0.9, 1), ([20, 20, 40, 40], 0.5, 2), ([60, 60, 80, 80], 0.2, 1))
    taken = [drawn(given_found, 0.3, random.Random(seed)) for seed in range(2000)]
    share = {label: np.mean([any(each == label for _, each in one) for one in taken]) for label in (1, 2)}
    assert share[1] == pytest.approx(0.9, abs=0.03)
    assert share[2] == pytest.approx(0.5, abs=0.04)
    assert not any(box[0] == 60 for one in taken for box, _ in one)  # below the least score, never
    assert drawn(given_found, 0.3, random.Random(5)) == drawn(given_found, 0.3, random.Random(5))


def test_a_box_without_an_area_is_no_pseudo_label():
    assert drawn(found(([5, 5, 5, 9], 1.0, 1)), 0.0, random.Random(0)) == []
