"""Builds the user's torch model from its factory and weights, without ever running code that hides in a file."""

import importlib
import importlib.util
import os
import sys
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from components.core.contracts.job import ModelSource
from components.core.errors import UserError

if TYPE_CHECKING:
    import torch

FACTORIES = "HASTEN_FACTORIES"
"""Environment variable: the only packages that a job's factory may come from, separated by commas; default: any but
Python's own and those that run what they are told to."""
_RUNNERS = frozenset({"pip", "setuptools", "IPython", "torch.hub", "torch.utils.cpp_extension"})
"""Packages, besides Python's own, whose functions run commands or fetch code: no model comes from there."""
_OWN = frozenset(f"components.{module}:build" for module in ("backbone.factory", "family.build", "family.classifiers"))
"""What the rungs that search make their models by; a list of allowed packages is about the user's."""
_SHOWN = 3
"""How many mismatching keys an error lists of each kind."""
_WRAPPERS = ("state_dict", "model_state_dict", "model", "weights", "ema")
"""Keys under which training scripts keep the state dict inside a larger checkpoint."""


def bundled(path_or_uri: str, folder: Path) -> Path:
    """Where `fetch` puts a file of the job: by its name, directly in `folder`."""
    return folder / path_or_uri.rstrip("/").rsplit("/", 1)[-1]


def load_torch_model(source: ModelSource, bundle_model_folder: Path) -> "torch.nn.Module":
    """The user's model in eval mode, from a factory with weights or from a `.pt2` program.

    Args:
        source: the job's model. A `.pt2` gives a module that takes one batch [1, 3, H, W].
        bundle_model_folder: the folder that `fetch` put the weights or the program in.

    Raises:
        UserError: the factory cannot be imported or called, the file is unreadable or has code in it, the weights
            belong to another architecture, or the source is an ONNX file, which is no torch model.
    """
    if source.program:
        from components.core.programs import load_program

        return load_program(bundled(source.program, bundle_model_folder))
    if not source.factory or not source.weights:
        raise UserError(f"model.onnx {source.onnx} is no torch model; give model.factory with model.weights")
    model = call_factory(source.factory, source.kwargs)
    path = bundled(source.weights, bundle_model_folder)
    _load_weights(model, read_state_dict(path), path, source.factory)
    return model.eval()


def read_state_dict(path: Path) -> "dict[str, torch.Tensor]":
    """Reads a `.safetensors` file or a plain state dict (`torch.save(model.state_dict(), ...)`), on the CPU.

    Raises:
        UserError: the file is missing, truncated, has pickled code in it or is no plain state dict.
    """
    if not path.is_file():
        raise UserError(f"weights {path.name} do not exist at {path}; check model.weights")
    refuse_compressed(path, f"weights {path.name}")
    if path.suffix == ".safetensors":
        return _read_safetensors(path)
    return _read_pickled_tensors(path)


def refuse_compressed(path: Path, what: str) -> None:
    """Refuses a zip archive with compressed members: torch writes none, and a small file could fill the memory.

    Raises:
        UserError: a member is compressed, or the archive's list claims more than the file holds.
    """
    if not zipfile.is_zipfile(path):
        return
    try:
        with zipfile.ZipFile(path) as archive:
            members = archive.infolist()
    except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError):
        return  # the reader says what is damaged
    packed = any(member.compress_type != zipfile.ZIP_STORED for member in members)
    if packed or sum(member.file_size for member in members) > path.stat().st_size:
        raise UserError(f"{what} is a compressed archive, which torch never writes; save it again with torch")


def _read_safetensors(path: Path) -> "dict[str, torch.Tensor]":
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        return load_file(path)
    except (SafetensorError, OSError) as error:
        raise UserError(f"weights {path.name} are no whole .safetensors file: {_words(error)}") from error


def _read_pickled_tensors(path: Path) -> "dict[str, torch.Tensor]":
    import pickle

    import torch

    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise UserError(
            f"weights {path.name} hold more than tensors: pickled objects and code are never run; "
            "save with torch.save(model.state_dict(), ...) or as .safetensors"
        ) from error
    # A damaged file fails in many ways: EOFError, RuntimeError, KeyError, UnicodeDecodeError...
    except Exception as error:
        raise UserError(f"weights {path.name} are damaged or no torch file: {_words(error)}") from error
    return _plain_state_dict(state, path)


def _plain_state_dict(state: object, path: Path) -> "dict[str, torch.Tensor]":
    import torch

    if isinstance(state, Mapping) and state and all(isinstance(value, torch.Tensor) for value in state.values()):
        return dict(state)
    if not isinstance(state, Mapping):
        raise UserError(f"weights {path.name} hold a {type(state).__name__}, not a state dict (name -> tensor)")
    inner = next((key for key in _WRAPPERS if isinstance(state.get(key), Mapping)), None)
    hint = f"; save checkpoint[{inner!r}] on its own" if inner else ""
    keys = ", ".join(str(key) for key in list(state)[:_SHOWN]) or "no keys"
    raise UserError(f"weights {path.name} are no plain state dict (name -> tensor) but a dict with {keys}{hint}")


def call_factory(factory: str, kwargs: dict[str, Any]) -> "torch.nn.Module":
    """What a job's factory returns, as it initialised it.

    Raises:
        UserError: it cannot be imported or called, or returns something else.
    """
    import torch

    function = _import_factory(factory)
    try:
        model = function(**kwargs)
    except Exception as error:
        given = ", ".join(f"{key}={value!r}" for key, value in kwargs.items())
        raise UserError(f"model.factory {factory}({given}) raised {type(error).__name__}: {_words(error)}") from error
    if not isinstance(model, torch.nn.Module):
        raise UserError(f"model.factory {factory} returned a {type(model).__name__}, not a torch.nn.Module")
    return model


def check_package(factory: str) -> None:
    """Refuses a factory that would make a job a command line, such as `subprocess:run`, or is not on the allow-list.

    Raises:
        UserError: the package is Python's own, one that runs or fetches code, or not in `HASTEN_FACTORIES`.
    """
    module = factory.partition(":")[0]
    parts = module.split(".")
    names = {".".join(parts[:end]) for end in range(1, len(parts) + 1)}
    allowed = {name.strip() for name in os.environ.get(FACTORIES, "").split(",") if name.strip()}
    if factory in _OWN:
        return
    if allowed:
        if not names & allowed:
            raise UserError(
                f"model.factory {factory}: {module} is not among {FACTORIES} ({', '.join(sorted(allowed))}); "
                "add it there to allow it"
            )
    elif parts[0] in sys.stdlib_module_names or names & _RUNNERS:
        raise UserError(
            f"model.factory {factory}: {module} makes no models; give a function of your own package that returns one "
            f"(or allow {module} in {FACTORIES})"
        )


def _import_factory(factory: str) -> Callable[..., object]:
    module_name, _, function_name = factory.partition(":")
    check_package(factory)
    try:
        module = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        if error.name and (module_name == error.name or module_name.startswith(error.name + ".")):
            raise UserError(
                f"model.factory {factory}: there is no module {error.name!r} here; "
                "install the package or put its folder on PYTHONPATH"
            ) from error
        raise UserError(
            f"model.factory {factory}: {module_name} needs {error.name!r}, which is not installed"
        ) from error
    except Exception as error:
        reason = f"{type(error).__name__}: {_words(error)}"
        raise UserError(f"model.factory {factory}: importing {module_name} raised {reason}") from error
    function = getattr(module, function_name, None)
    if not callable(function):
        found = "is no function" if function is not None else "does not exist"
        offered = [name for name, value in vars(module).items() if callable(value) and not name.startswith("_")]
        names = ", ".join(offered[: 2 * _SHOWN]) or "none"
        raise UserError(f"model.factory {factory}: {function_name} {found} in {module_name}; functions there: {names}")
    result: Callable[..., object] = function
    return result


def _load_weights(model: "torch.nn.Module", weights: "Mapping[str, torch.Tensor]", path: Path, factory: str) -> None:
    expected = model.state_dict()
    # Batch norms saved by old torch versions lack the counter, which inference does not use.
    missing = [key for key in expected if key not in weights and not key.endswith("num_batches_tracked")]
    unexpected = [key for key in weights if key not in expected]
    reshaped = [
        f"{key} (file {list(weights[key].shape)}, model {list(expected[key].shape)})"
        for key in expected
        if key in weights and weights[key].shape != expected[key].shape
    ]
    problems = [
        f"{len(keys)} of {total} {what}: {', '.join(keys[:_SHOWN])}{', ...' if len(keys) > _SHOWN else ''}"
        for keys, total, what in (
            (missing, len(expected), "keys are missing"),
            (unexpected, len(weights), "keys are unexpected"),
            (reshaped, len(expected), "keys have another shape"),
        )
        if keys
    ]
    if problems:
        raise UserError(f"weights {path.name} do not fit model.factory {factory}: {'; '.join(problems)}")
    model.load_state_dict(weights, strict=False)


def _words(error: BaseException) -> str:
    """The first sentence-like part of an error's text, on one line."""
    text = " ".join(str(error).split()) or type(error).__name__
    return text if len(text) <= 200 else text[:199] + "…"
