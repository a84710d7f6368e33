"""What a student is taught by: softened class probabilities, labels, features. Pure functions of tensors."""

import torch
from torch.nn.functional import cross_entropy, interpolate, kl_div, log_softmax, softmax

NO_LABEL = -1
"""Label of a sample that nobody labelled."""
_TINY = 1e-6


def soft_targets(logits: torch.Tensor, temperature: float) -> torch.Tensor:
    """What an ensemble of teachers believes: the mean of their softened probabilities (Hinton et al. 2015).

    Args:
        logits: [teachers, N, classes].
        temperature: that the logits are divided by; higher shows more of what a teacher thinks of the other classes.

    Returns:
        Probabilities [N, classes].
    """
    return softmax(logits.float() / temperature, dim=-1).mean(dim=0)


def soft_loss(logits: torch.Tensor, targets: torch.Tensor, temperature: float) -> torch.Tensor:
    """Kullback-Leibler divergence of the student from the targets, at the targets' temperature.

    Times the temperature's square, so that its gradients keep their size whatever the temperature is (Hinton et al.
    2015, section 2).

    Args:
        logits: of the student, [N, classes].
        targets: of `soft_targets`, [N, classes].
        temperature: that the targets were softened with.

    Returns:
        Mean over the samples, 0 where the student says what the teachers say.
    """
    own = log_softmax(logits.float() / temperature, dim=-1)
    return kl_div(own, targets, reduction="batchmean") * temperature**2


def hard_loss(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """Cross entropy of the samples that have a label; 0 if none has.

    Args:
        logits: of the student, [N, classes].
        labels: [N], `NO_LABEL` where there is none.
    """
    labelled = labels != NO_LABEL
    if not bool(labelled.any()):
        return logits.sum() * 0.0  # a zero that knows the student, so that every process exchanges its gradients
    return cross_entropy(logits.float()[labelled], labels[labelled])


def hint_loss(student: torch.Tensor, teacher: torch.Tensor) -> torch.Tensor:
    """How far features are from the teacher's, as a share of what these are (FitNets, Romero et al. 2015).

    Args:
        student: features that an adapter brought to the teacher's channels, [N, C, ...]; resized to the teacher's
            height and width, or length.
        teacher: [N, C, ...].

    Returns:
        Mean square of the difference over the teacher's mean square: 0 where they agree, 1 where the student is 0.
    """
    student, teacher = student.float(), teacher.float()
    if student.shape[2:] != teacher.shape[2:]:
        mode = "bilinear" if teacher.ndim == 4 else "linear"
        student = interpolate(student, size=tuple(teacher.shape[2:]), mode=mode, align_corners=False)
    return (student - teacher).square().mean() / teacher.square().mean().clamp(min=_TINY)
