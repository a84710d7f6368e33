"""Published accuracies that are known without a network: those that torchvision's weights carry with them."""

TOP1 = "ImageNet-1K top-1 of torchvision's first weights"


def published(name: str) -> float | None:
    """Top-1 accuracy 0..1 of a network on ImageNet-1K; None where the installed packages do not say.

    Of the first weights of each network: later ones were trained with other recipes, and would compare recipes.
    timm does not carry its results with it.

    Args:
        name: ``timm/NAME`` or ``torchvision/NAME``.
    """
    library, _, model = name.partition("/")
    if library != "torchvision":
        return None
    from torchvision.models import get_model_weights

    for weights in get_model_weights(model):  # type: ignore[attr-defined]
        value = weights.meta.get("_metrics", {}).get("ImageNet-1K", {}).get("acc@1")
        if value is not None and weights.name == "IMAGENET1K_V1":
            return float(value) / 100
    return None
