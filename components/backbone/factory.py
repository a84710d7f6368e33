"""The factory that a job with an exchanged backbone names: the user's own model, with another backbone."""

from typing import Any

from torch import nn

from components.backbone.exchange import exchange, resize
from components.core.models import call_factory


def build(
    factory: str,
    kwargs: dict[str, Any],
    backbone: str,
    designed_for: tuple[int, int],
    input_size: tuple[int, int] | None = None,
) -> nn.Module:
    """The user's detector with another backbone, with random weights.

    Args:
        factory: the user's own, `package.module:function`.
        kwargs: of it.
        backbone: ``timm/NAME`` or ``torchvision/NAME``.
        designed_for: height and width in pixels of the input that the user's model is used with.
        input_size: another height and width to work at; default: the same.

    Raises:
        StepError: the two do not fit together.
        UserError: the user's factory cannot be called.
    """
    model = exchange(call_factory(factory, kwargs), backbone, *designed_for)
    if input_size is not None and tuple(input_size) != tuple(designed_for):
        resize(model, input_size[0], input_size[1], (designed_for[0], designed_for[1]))
    return model
