import pytest
import torch
import torchvision
from hypothesis import given, settings
from hypothesis import strategies as st
from torchvision.models.detection._utils import BoxCoder, BoxLinearCoder

from components.export.canonical_tail import (
    DROPPED,
    apart,
    best_of_levels,
    decode,
    decode_distances,
    keep_unsuppressed,
    pick,
)


def boxes_in(draw: torch.Generator, *shape: int, side: float = 20.0) -> torch.Tensor:
    corner = torch.rand(*shape, 2, generator=draw) * side
    return torch.cat([corner, corner + torch.rand(*shape, 2, generator=draw) * 0.75 * side], -1)


@settings(deadline=None, max_examples=60)
@given(
    st.integers(0, 10_000),
    st.integers(1, 3),
    st.integers(1, 60),
    st.floats(0.1, 0.9),
    st.integers(1, 70),
    st.integers(0, 20),
)
def test_keep_unsuppressed_is_greedy_nms_of_each_row(seed, rows, count, threshold, limit, dropped):
    draw = torch.Generator().manual_seed(seed)
    boxes = boxes_in(draw, rows, count)
    scores = torch.rand(rows, count, generator=draw)
    scores[0, :dropped] = DROPPED
    kept = keep_unsuppressed(boxes, scores, threshold, limit)
    for row in range(rows):
        real = torch.arange(count)[scores[row] > DROPPED]
        expected = real[torchvision.ops.nms(boxes[row, real], scores[row, real], threshold)][:limit]
        assert set((kept[row] > DROPPED).nonzero().flatten().tolist()) == set(expected.tolist())
        assert torch.equal(kept[row, expected], scores[row, expected])


@settings(deadline=None, max_examples=40)
@given(st.integers(0, 10_000), st.integers(1, 60), st.integers(2, 90))
def test_classes_that_are_moved_apart_do_not_suppress_one_another(seed, count, classes):
    draw = torch.Generator().manual_seed(seed)
    boxes, scores = boxes_in(draw, count), torch.rand(count, generator=draw)
    labels = torch.randint(0, classes, (count,), generator=draw)
    places = apart(boxes[None], labels[None], classes, (35, 35))
    kept = keep_unsuppressed(places, scores[None], 0.5, count)[0]
    expected = torchvision.ops.boxes._batched_nms_vanilla(boxes, scores, labels, 0.5)
    assert set((kept > DROPPED).nonzero().flatten().tolist()) == set(expected.tolist())


@pytest.mark.parametrize("rows", [1, 3])
def test_pick_takes_each_rows_own_values_or_shared_ones(rows):
    values = torch.arange(rows * 5 * 2).reshape(rows, 5, 2)
    index = torch.tensor([[3, 0, 2]]).repeat(rows, 1) - torch.arange(rows)[:, None] % 2 + 1
    picked = pick(values, index)
    assert torch.equal(picked, torch.stack([values[row, index[row]] for row in range(rows)]))
    shared = pick(values[:1], index)
    assert torch.equal(shared, torch.stack([values[0, index[row]] for row in range(rows)]))


def test_decoding_is_torchvisions():
    draw = torch.Generator().manual_seed(3)
    anchors, deltas = boxes_in(draw, 50), torch.randn(50, 4, generator=draw)
    deltas[:5, 2:] = 9.0  # beyond the clip of the growth
    coder = BoxCoder((10.0, 10.0, 5.0, 5.0), 1.2)
    torch.testing.assert_close(decode(deltas, anchors, coder), coder.decode_single(deltas, anchors))
    for normalized in (True, False):
        linear = BoxLinearCoder(normalized)
        torch.testing.assert_close(decode_distances(deltas, anchors, linear), linear.decode(deltas, anchors))


def test_the_best_pairs_of_a_level_know_their_anchor_and_class():
    scores = torch.tensor([[[0.1, 0.9], [0.6, 0.2], [0.3, 0.8]]])
    deltas = torch.arange(12.0).reshape(1, 3, 4)
    found, picked, anchors, labels = best_of_levels([scores], [deltas], [deltas + 100], 4, threshold=0.5)
    assert found[0].tolist() == pytest.approx([0.9, 0.8, 0.6, DROPPED])
    assert labels[0].tolist() == [1, 1, 0, 0]
    assert picked[0, :, 0].tolist() == [0.0, 8.0, 4.0, 8.0]
    assert torch.equal(anchors, picked + 100)
