"""The files of a model that a job names: weights, program or ONNX file, with what belongs to it."""

from collections.abc import Mapping
from pathlib import Path

from components.core.contracts.job import Data, ModelSource
from components.core.errors import UserError
from components.core.models import bundled
from components.core.onnx_wire import external_data_files
from components.core.storage import check_size
from components.fetch.lookup import Source, Sources

_ACCEPTED: Mapping[str, tuple[tuple[str, ...], str]] = {
    "weights": ((".safetensors", ".pt", ".pth"), "the path or s3:// URI of a .safetensors, .pt or .pth file"),
    "program": ((".pt2",), "the path or s3:// URI of a .pt2 file"),
    "onnx": ((".onnx",), "the path or s3:// URI of an .onnx file"),
}


def plan_model(model: ModelSource, sources: Sources, data: Data, where: str = "model") -> dict[Path, Source]:
    """Finds the files of a model: the model's own first.

    Args:
        model: what the job says.
        sources: looks files up.
        data: for `data.max_download`.
        where: the model's place in the job, for messages.

    Returns:
        Path in the model's folder -> source.

    Raises:
        UserError: a file is missing, of the wrong kind, damaged or too large.
    """
    kind = next(kind for kind in _ACCEPTED if getattr(model, kind))
    files = plan_file(f"{where}.{kind}", getattr(model, kind), sources, kind)
    if kind == "onnx":
        field, (found,) = f"{where}.{kind}", files.values()
        check_size(f"{field}: {model.onnx}", found.size, data.max_download)
        try:
            locations = external_data_files(sources.read(found, "downloading the model"))
        except UserError as error:
            raise UserError(f"{field}: {error}") from error
        files |= {Path(location): sources.beside(field, found, location) for location in locations}
    return files


def plan_file(field: str, uri: str, sources: Sources, kind: str = "weights") -> dict[Path, Source]:
    """Finds one file of a kind, by the name that it has in its folder of the bundle.

    Raises:
        UserError: it is missing or has the wrong suffix.
    """
    suffixes, accepted = _ACCEPTED[kind]
    name = bundled(uri, Path())
    if name.suffix.lower() not in suffixes:
        raise UserError(f"{field}: {uri} is no {' or '.join(suffixes)} file; give {accepted}")
    return {name: sources.file(field, uri, accepted)}
