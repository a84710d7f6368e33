"""The student while it learns: its own forward, and adapters from its features to those of the teachers."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn

from components.core.contracts.job import Hint, Job, ModelSource
from components.core.errors import UserError
from components.core.models import call_factory, load_torch_model
from components.distill.features import submodule, watch

Invoke = Callable[..., Any]
"""Calls the student on what the loss has, and gives what the loss needs: logits, or a detector's own losses."""


class Distilled(nn.Module):
    """A student with an adapter for each hint.

    Its forward returns what `invoke` returns and the adapted features; both in one call, so that several processes
    exchange the gradients of all of it.

    Args:
        student: what is trained, and all that is handed on.
        invoke: see `Invoke`.
        hints: what it is to imitate.
        channels: of the teachers' features, one for each hint.
        probe: arguments for `invoke` that show the student's own channels; not needed without hints.
    """

    def __init__(
        self,
        student: nn.Module,
        invoke: Invoke,
        hints: Sequence[Hint] = (),
        channels: Sequence[int] = (),
        probe: tuple[Any, ...] = (),
    ) -> None:
        super().__init__()
        self.student = student
        self._invoke = invoke
        self._names = [hint.student for hint in hints]
        self._seen: dict[str, torch.Tensor] = {}
        for name in dict.fromkeys(self._names):
            watch(submodule(student, name, "distill.hints"), name, "distill.hints: student", self._seen)
        own = self._channels(probe) if hints else []
        # One linear map from channels to channels at every place: a convolution of 1 x 1 whatever the axes are.
        self.adapters = nn.ModuleList(nn.Linear(*pair) for pair in zip(own, channels, strict=True))

    def forward(self, *arguments: Any) -> tuple[Any, list[torch.Tensor]]:
        """What `invoke` returns, and the student's features [N, C of the teacher, ...], one for each hint."""
        output = self._invoke(self.student, *arguments)
        adapted = [
            adapter(self._seen[name].movedim(1, -1)).movedim(-1, 1)
            for adapter, name in zip(self.adapters, self._names, strict=True)
        ]
        self._seen.clear()
        return output, adapted

    def _channels(self, probe: tuple[Any, ...]) -> list[int]:
        self.student.eval()  # a batch norm of one sample must not learn from it
        with torch.no_grad():
            self._invoke(self.student, *probe)
        if missing := [name for name in self._names if name not in self._seen]:
            raise UserError(f"distill.hints: the student does not use its part {missing[0]!r}; name another one")
        channels = [self._seen[name].shape[1] for name in self._names]
        self._seen.clear()
        return channels


def new_student(job: Job, bundle: Path) -> nn.Module:
    """The student before it learns anything: from its weights, else as its factory makes it with `budget.seed`.

    Raises:
        UserError: the factory cannot be called, or the weights do not fit it.
    """
    if job.distill is None:
        raise ValueError("the job has no distill")
    student = job.distill.student
    torch.manual_seed(job.budget.seed)
    if student.weights is None:
        return call_factory(student.factory, student.kwargs).eval()
    source = ModelSource(factory=student.factory, kwargs=student.kwargs, weights=student.weights)
    return load_torch_model(source, bundle / "student")
