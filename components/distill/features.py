"""Features inside a model: read by hooks, brought into one layout."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn

from components.core.errors import UserError

_CHANNELS_SECOND = (nn.Conv1d, nn.BatchNorm1d, nn.MaxPool1d, nn.AvgPool1d)
_SHOWN = 12


def submodule(module: nn.Module, name: str, field: str) -> nn.Module:
    """A part of a model by its dotted name.

    Args:
        module: the model.
        name: as `named_modules` has it, for instance `backbone.layer3`.
        field: of the job, for the message.

    Raises:
        UserError: there is no such part.
    """
    parts = dict(module.named_modules())
    if not name or name not in parts:
        outer = [each for each in parts if each and each.count(".") < 2][:_SHOWN]
        raise UserError(f"{field}: the model has no part {name!r}; some that it has: {', '.join(outer)}")
    part: nn.Module = parts[name]
    return part


@contextmanager
def watched(module: nn.Module, names: Sequence[str], field: str) -> Iterator[dict[str, torch.Tensor]]:
    """Fills the dict that it yields with the features of these parts, anew at each call of the module.

    Raises:
        UserError: there is no such part, or what it gives are no features.
    """
    seen: dict[str, torch.Tensor] = {}
    handles = [watch(submodule(module, name, field), name, field, seen) for name in names]
    try:
        yield seen
    finally:
        for handle in handles:
            handle.remove()


def watch(part: nn.Module, name: str, field: str, seen: dict[str, torch.Tensor]) -> Any:
    """Puts what a part gives into `seen[name]` at each call; returns the hook's handle."""

    def keep(_part: nn.Module, _inputs: Any, output: Any) -> None:
        seen[name] = as_features(output, part, f"{field}: {name}")

    return part.register_forward_hook(keep)


def as_features(output: Any, part: nn.Module, what: str) -> torch.Tensor:
    """What a part of a model gives, as [N, C], [N, C, length] or [N, C, H, W].

    Of three axes the last is taken for the channels, as transformers have it, unless the part is a convolution or the
    like in one dimension. Of a tuple the first counts, of a transformer's output its `last_hidden_state`.

    Raises:
        UserError: it is nothing of the kind.
    """
    if isinstance(output, tuple | list) and output:
        output = output[0]
    output = getattr(output, "last_hidden_state", output)
    if not isinstance(output, torch.Tensor) or not 2 <= output.ndim <= 4 or not output.is_floating_point():
        kind = f"tensor of {output.ndim} axes" if isinstance(output, torch.Tensor) else type(output).__name__
        raise UserError(f"{what} gives a {kind}; a hint needs features [N, C], [N, length, C] or [N, C, H, W]")
    if output.ndim == 3 and not isinstance(part, _CHANNELS_SECOND):
        return output.transpose(1, 2)
    return output
