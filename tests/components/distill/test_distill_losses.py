"""The losses of distillation, by what must hold of them whatever the numbers are."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from components.distill.losses import NO_LABEL, hard_loss, hint_loss, soft_loss, soft_targets

SEEDS = st.integers(0, 2**31)
TEMPERATURES = st.floats(0.5, 20.0)


def logits(seed: int, *shape: int, spread: float = 4.0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed)) * spread


@given(SEEDS, TEMPERATURES)
def test_soft_targets_are_probabilities_between_those_of_the_teachers(seed, temperature):
    given_logits = logits(seed, 3, 5, 4)
    targets = soft_targets(given_logits, temperature)
    assert torch.allclose(targets.sum(dim=-1), torch.ones(5), atol=1e-5)
    each = torch.softmax(given_logits / temperature, dim=-1)
    assert (targets <= each.max(dim=0).values + 1e-6).all()
    assert (targets >= each.min(dim=0).values - 1e-6).all()
    # Neither the order of the teachers nor a constant added to one's logits says anything.
    assert torch.allclose(targets, soft_targets(given_logits.flip(0) + 3.0, temperature), atol=1e-5)
    assert torch.allclose(soft_targets(given_logits[:1], temperature), each[0])


@given(SEEDS, TEMPERATURES)
def test_the_soft_loss_is_zero_for_the_teacher_and_positive_for_others(seed, temperature):
    teacher, student = logits(seed, 1, 6, 5), logits(seed + 1, 6, 5)
    targets = soft_targets(teacher, temperature)
    assert float(soft_loss(teacher[0], targets, temperature)) == pytest.approx(0.0, abs=1e-4 * temperature**2)
    assert float(soft_loss(student, targets, temperature)) > 0


def test_the_soft_loss_is_the_divergence_times_the_square_of_the_temperature():
    teacher, student = torch.tensor([[[2.0, 0.0]]]), torch.tensor([[0.0, 0.0]])
    p = 1 / (1 + math.exp(-0.5))  # at a temperature of 4 the logits differ by a half
    by_hand = 16 * (p * math.log(2 * p) + (1 - p) * math.log(2 * (1 - p)))
    assert float(soft_loss(student, soft_targets(teacher, 4.0), 4.0)) == pytest.approx(by_hand, rel=1e-4)


def test_gradients_keep_their_size_at_high_temperatures():
    # Hinton et al. 2015, equation 4: for small logits they tend to (student - teacher) / classes.
    teacher, student = logits(1, 1, 1, 4, spread=0.1), logits(2, 1, 4, spread=0.1)
    teacher, student = teacher - teacher.mean(), (student - student.mean()).requires_grad_()
    soft_loss(student, soft_targets(teacher, 50.0), 50.0).backward()
    assert student.grad is not None
    assert torch.allclose(student.grad, (student.detach() - teacher[0]) / 4, atol=1e-3)


def test_samples_without_a_label_do_not_count():
    student = logits(3, 4, 3)
    labels = torch.tensor([0, NO_LABEL, 2, NO_LABEL])
    expected = nn.functional.cross_entropy(student[[0, 2]], torch.tensor([0, 2]))
    assert float(hard_loss(student, labels)) == pytest.approx(float(expected))
    student.requires_grad_()
    nothing = hard_loss(student, torch.full((4,), NO_LABEL))
    nothing.backward()
    assert float(nothing) == 0.0
    assert student.grad is not None
    assert not student.grad.any()


@given(SEEDS, st.floats(0.01, 100.0))
def test_the_hint_loss_is_a_share_of_the_teachers_features(seed, scale):
    teacher, student = logits(seed, 2, 3, 4, 4), logits(seed + 1, 2, 3, 4, 4)
    loss = float(hint_loss(student, teacher))
    assert loss > 0
    assert float(hint_loss(scale * student, scale * teacher)) == pytest.approx(loss, rel=1e-3)
    assert float(hint_loss(teacher, teacher)) == 0.0
    assert float(hint_loss(torch.zeros_like(teacher), teacher)) == pytest.approx(1.0, rel=1e-4)


@pytest.mark.parametrize(("own", "other"), [((2, 3, 4, 4), (2, 3, 8, 6)), ((2, 3, 5), (2, 3, 9))])
def test_features_of_another_size_are_resized(own, other):
    assert float(hint_loss(torch.ones(own), torch.ones(other))) == pytest.approx(0.0, abs=1e-6)
