"""One step in a container of plain Argo Workflows: ``python -m pipelines.argo.step NAME --root s3://... --param k=v``.

Runs the body of the KFP component, with folders in S3 where KFP's launcher would put them: outputs are written here,
uploaded, and only then announced in `--out`, a file a parameter, which Argo picks up.
"""

import argparse
import hashlib
import inspect
import json
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from components.core.errors import StepError, UserError
from components.core.s3 import S3, S3Location, parse_s3
from components.core.stepping import EXIT_BAD_INPUT, EXIT_INTERNAL, one_line
from pipelines.argo.handover import handed_over, read, resolved, upload, write
from pipelines.argo.steps import find_step

KEYS = "keys"
"""Folder below the root with the outputs of steps by what went in."""


@dataclass
class Artifact:
    """An output folder or file, as a component's body knows it from KFP."""

    path: str
    uri: str
    metadata: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Place:
    """Where a step's outputs go."""

    root: S3Location
    """Shared by all runs: what is reused lies below it."""
    run: str
    """Name of the pod; unlike any other's, so that a second try writes to a place of its own."""

    def at(self, *names: str) -> S3Location:
        """A place for an output of this pod."""
        return self._below("runs", self.run, *names)

    def key(self, digest: str) -> S3Location:
        """The place of the outputs for what went in."""
        return self._below(KEYS, f"{digest}.json")

    def _below(self, *names: str) -> S3Location:
        return S3Location(self.root.bucket, "/".join(filter(None, (self.root.key.strip("/"), *names))))


def run_step(name: str, parameters: Mapping[str, str], place: Place, *, cache: bool) -> dict[str, str]:
    """Runs a step.

    Args:
        name: of the component.
        parameters: as Argo passes them, each a text or a reference.
        place: where outputs go.
        cache: take the outputs of an earlier run of the same step on the same parameters, and keep these.

    Returns:
        Output parameters: texts or references.

    Raises:
        UserError: no such step or parameter, or a place that cannot be read or written.
        SystemExit: the step itself failed and said why.
    """
    component = find_step(name)
    inputs = component.component_spec.inputs or {}
    given = {key: resolved(value) for key, value in parameters.items()}
    unknown = sorted(set(given) - set(inputs))
    missing = sorted(key for key, spec in inputs.items() if not spec.optional and key not in given)
    if unknown or missing:
        raise UserError(
            f"step {name}: given {', '.join(sorted(given)) or 'nothing'}, accepted: {', '.join(inputs)}"
            + (f"; missing: {', '.join(missing)}" if missing else "")
        )
    digest = hashlib.sha256(json.dumps([name, given], sort_keys=True).encode()).hexdigest()
    kept = _kept(place.key(digest)) if cache else None
    if kept is not None:
        print(f"hasten: {name}: done before, see {place.key(digest).uri}", file=sys.stderr)
        return kept
    with tempfile.TemporaryDirectory(prefix=f"hasten-{name}-") as temporary:
        artifacts = {
            key: Artifact(str(Path(temporary) / key), place.at(key).uri)
            for key in inspect.signature(component.python_func).parameters
            if key not in inputs
        }
        typed = {key: value if inputs[key].type == "String" else json.loads(value) for key, value in given.items()}
        result = component.python_func(**typed, **artifacts)
        for key, artifact in artifacts.items():
            if Path(artifact.path).exists():
                upload(Path(artifact.path), place.at(key))
    outputs = {
        key: handed_over(value, place.at("parameters", key))
        for key, value in _returned(result, component.component_spec.outputs or {}, artifacts).items()
    }
    if cache:
        write(place.key(digest), json.dumps(outputs, sort_keys=True).encode())
    return outputs


def _returned(result: Any, outputs: Mapping[str, Any], artifacts: Mapping[str, Artifact]) -> dict[str, str]:
    """Output parameters by name, each as text."""
    names = [name for name in outputs if name not in artifacts]
    values = list(result) if isinstance(result, tuple) else [result]
    return {
        name: value if isinstance(value, str) else json.dumps(value)
        for name, value in zip(names, values, strict=True)
        if names
    }


def _kept(place: S3Location) -> dict[str, str] | None:
    """Outputs of an earlier run, if what they point to is still there."""
    content = read(place)
    if content is None:
        return None
    outputs: dict[str, str] = json.loads(content)
    uris = [value.removeprefix("@") for value in outputs.values() if value.startswith(("s3://", "@s3://"))]
    return outputs if all(_is_there(parse_s3(uri)) for uri in uris) else None


def _is_there(location: S3Location) -> bool:
    store = S3()
    return store.find(location) is not None or bool(store.below(location))


def main(arguments: Sequence[str] | None = None) -> int:
    """Entry point of the containers: 0, or 2 for a mistake of the user's and 1 for the rest, with a line on stderr."""
    parser = argparse.ArgumentParser(prog="python -m pipelines.argo.step", description=__doc__)
    parser.add_argument("name")
    parser.add_argument("--root", required=True, help="s3://bucket/prefix that all runs share")
    parser.add_argument("--run", required=True, help="the pod's name")
    parser.add_argument("--out", required=True, type=Path, help="folder that gets a file an output parameter")
    parser.add_argument("--cache", action="store_true", help="reuse what the same step made of the same parameters")
    parser.add_argument("--param", action="append", default=[], metavar="NAME=VALUE")
    options = parser.parse_args(arguments)
    parameters = dict(text.partition("=")[::2] for text in options.param)
    try:
        outputs = run_step(options.name, parameters, Place(parse_s3(options.root), options.run), cache=options.cache)
        options.out.mkdir(parents=True, exist_ok=True)
        for name, value in outputs.items():
            (options.out / name).write_text(value)
    except (UserError, StepError) as error:
        print(f"hasten: {options.name}: {one_line(error)}", file=sys.stderr)
        return EXIT_BAD_INPUT if isinstance(error, UserError) else EXIT_INTERNAL
    return 0


if __name__ == "__main__":
    sys.exit(main())
