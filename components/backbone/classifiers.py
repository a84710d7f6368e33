"""For a classifier of images the backbone is the whole network of timm or torchvision, with as many outputs."""

import torch
from torch import nn

from components.core.errors import StepError
from components.core.tasks.torch_calls import logits_of


def build_classifier(network: str, classes: int) -> nn.Module:
    """A network with random weights: images ``[N, 3, H, W]`` -> logits ``[N, classes]``.

    Args:
        network: ``timm/NAME`` or ``torchvision/NAME``.
        classes: outputs.
    """
    library, _, name = network.partition("/")
    if library == "timm":
        import timm

        made: nn.Module = timm.create_model(name, pretrained=False, num_classes=classes)
        return made
    from torchvision.models import get_model

    # Auxiliary heads (GoogLeNet, Inception) would make other outputs in training.
    whole: nn.Module = get_model(name, weights=None, num_classes=classes)
    if hasattr(whole, "aux_logits"):
        raise StepError(f"{network} has auxiliary heads, whose outputs in training are no logits")
    return whole


def classes_of(model: nn.Module, shape: tuple[int, ...]) -> int:
    """How many classes a classifier tells apart.

    Args:
        model: of the user.
        shape: of its input, [N, 3, H, W].

    Raises:
        StepError: it returns no logits.
    """
    training = model.training
    with torch.no_grad():
        logits = logits_of(model.eval()(torch.zeros(shape)))
    model.train(training)
    return int(logits.shape[1])


def free_keys(network: nn.Module) -> set[str]:
    """The tensors of the last layer, which pretrained weights of other classes do not fit."""
    last = [name for name, module in network.named_modules() if isinstance(module, nn.Linear | nn.Conv2d)][-1]
    return {f"{last}.weight", f"{last}.bias"}
