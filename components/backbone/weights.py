"""An exchanged model's first weights: pretrained ones of the network if there are any, the user's where they fit."""

from collections.abc import Collection, Mapping
from pathlib import Path

from torch import Tensor, nn

from components.core.contracts.job import Pretrained
from components.core.errors import UserError
from components.core.models import read_state_dict
from components.core.storage import is_remote, materialize

_SUFFIXES = (".safetensors", ".pth", ".pt")
_BODY = "backbone.body."


def pretrained_state(name: str, pretrained: str) -> dict[str, Tensor] | None:
    """The classifier weights of a network of timm or torchvision; None if there are to be none.

    Args:
        name: ``timm/NAME`` or ``torchvision/NAME``.
        pretrained: `none`, `registry`, or a folder or URI with `NAME.safetensors`, `NAME.pth` or `NAME.pt`.

    Raises:
        UserError: there is no such file, it holds more than tensors, or the registry cannot be reached.
    """
    if pretrained == Pretrained.NONE:
        return None
    library, _, model = name.partition("/")
    if pretrained == Pretrained.REGISTRY:
        return _of_registry(library, model)
    return read_state_dict(_file(model, pretrained))


def load_body(network: nn.Module, state: Mapping[str, Tensor], name: str, free: Collection[str] = ()) -> None:
    """Loads classifier weights into a network or the part of it that gives features.

    timm names the parts of a feature network `stages_0` that are `stages.0` in the classifier.

    Args:
        network: of timm or torchvision.
        state: of the whole classifier.
        name: for the message.
        free: tensors that stay as they are; those of a classifier's last layer.

    Raises:
        UserError: the weights are of another network.
    """
    given = {_plain(key): value for key, value in state.items()}
    wanted = network.state_dict()
    fitting = {
        key: given[_plain(key)]
        for key, value in wanted.items()
        if key not in free and _plain(key) in given and given[_plain(key)].shape == value.shape
    }
    missing = [
        key for key in wanted if key not in fitting and key not in free and not key.endswith("num_batches_tracked")
    ]
    if missing:
        raise UserError(
            f"backbone.pretrained: the weights do not fit {name}: {len(missing)} of {len(wanted)} tensors are "
            f"missing or of another shape: {', '.join(missing[:3])}{', ...' if len(missing) > 3 else ''}"
        )
    network.load_state_dict(fitting, strict=False)


def take_over(module: nn.Module, user: Mapping[str, Tensor], *, body: bool) -> int:
    """Copies those of the user's weights that have a place of the same name and shape; returns how many tensors.

    The body is left out unless it is the user's own network: a few layers that happen to have the same name and shape
    are of no use to another one.

    Args:
        module: the exchanged model.
        user: state of the user's model.
        body: whether the body may be taken over too.
    """
    own = module.state_dict()
    fitting = {key: value for key, value in user.items() if key in own and own[key].shape == value.shape}
    bodies = {key for key in own if key.startswith(_BODY)}
    if not body or not bodies <= fitting.keys():
        fitting = {key: value for key, value in fitting.items() if key not in bodies}
    module.load_state_dict(fitting, strict=False)
    return len(fitting)


def _file(model: str, place: str) -> Path:
    for suffix in _SUFFIXES:
        uri = f"{place.rstrip('/')}/{model}{suffix}"
        try:
            path = materialize(uri)
        except UserError:
            if is_remote(uri) and suffix == _SUFFIXES[-1]:
                raise
            continue
        if path.is_file():
            return path
    names = ", ".join(f"{model}{suffix}" for suffix in _SUFFIXES)
    raise UserError(f"backbone.pretrained: {place} has none of {names}; put one there, or leave the candidate out")


def _of_registry(library: str, model: str) -> dict[str, Tensor]:
    try:
        if library == "timm":
            import timm

            state: dict[str, Tensor] = timm.create_model(model, pretrained=True).state_dict()
            return state
        from torchvision.models import get_model_weights

        weights = get_model_weights(model).DEFAULT  # type: ignore[attr-defined]
        # Tensors only: nothing in a downloaded file is ever run.
        found: dict[str, Tensor] = dict(weights.get_state_dict(progress=False, check_hash=True, weights_only=True))
        return found
    except (OSError, RuntimeError) as error:
        words = " ".join(str(error).split())[:200]
        raise UserError(f"backbone.pretrained: {library}/{model} cannot be had from the registry: {words}") from error


def _plain(key: str) -> str:
    return key.replace(".", "_")
