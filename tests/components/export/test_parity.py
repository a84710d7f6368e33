import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from components.core.tasks.detection import Detections
from components.export.parity import box_iou, compare


def some(boxes, scores, labels=None) -> Detections:
    labels = [1] * len(scores) if labels is None else labels
    return Detections(
        np.asarray(boxes, np.float32).reshape(-1, 4), np.asarray(scores, np.float32), np.asarray(labels, np.int64)
    )


REFERENCE = some([[0, 0, 10, 10], [20, 20, 40, 40]], [0.9, 0.5])


def test_the_same_detections_in_another_order_agree():
    parity = compare([REFERENCE], [some(REFERENCE.boxes[::-1], REFERENCE.scores[::-1])])
    assert (parity.detections, parity.matched, parity.agrees) == (2, 2, True)


def test_a_moved_box_a_changed_score_and_another_label_do_not_agree():
    for other in (
        some(REFERENCE.boxes + np.asarray([[2, 0, 2, 0], [0] * 4]), REFERENCE.scores),
        some(REFERENCE.boxes, REFERENCE.scores - [0.01, 0]),
        some(REFERENCE.boxes, REFERENCE.scores, [2, 1]),
        some(REFERENCE.boxes[1:], REFERENCE.scores[1:]),
    ):
        parity = compare([REFERENCE], [other])
        assert parity.matched == 1
        assert not parity.agrees


def test_detections_below_the_floor_do_not_count():
    assert compare([some([[0, 0, 5, 5]], [0.04])], [some([], [])]).detections == 0


def test_nothing_found_where_something_was_expected_does_not_agree():
    assert not compare([REFERENCE], [some([], [])]).agrees


@given(st.lists(st.tuples(*[st.integers(0, 50)] * 2, *[st.integers(1, 50)] * 2), min_size=1, max_size=8))
def test_iou_is_symmetric_and_one_with_itself(rectangles):
    boxes = np.asarray([[x, y, x + w, y + h] for x, y, w, h in rectangles], np.float32)
    overlap = box_iou(boxes, boxes)
    np.testing.assert_allclose(np.diag(overlap), 1, atol=1e-6)
    np.testing.assert_allclose(overlap, overlap.T, atol=1e-6)
    assert (overlap >= 0).all()
