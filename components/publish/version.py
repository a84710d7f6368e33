"""Puts a version together: the winner's files, the serving configuration, the card and the report, by content."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from components.core.contracts.job import Job, Runtime
from components.core.contracts.leaderboard import Candidate, Leaderboard
from components.core.contracts.variant import MANIFEST as VARIANTS
from components.core.contracts.variant import Manifest
from components.core.errors import StepError, UserError
from components.core.files import confined, sha256_file, sha256_files, sha256_listing
from components.core.onnx_wire import external_data_files
from components.core.storage import materialize
from components.publish.model_card import model_card
from components.publish.provenance import PROVENANCE, Provenance
from components.publish.records import PublishedFile, VersionManifest
from components.publish.signature import read_signature
from components.publish.store import Content, sha256_of, size_of
from components.publish.training_record import training_files
from components.publish.triton import BACKENDS, FALLBACK, REPOSITORY, config_pbtxt

OUTCOME = "retrain.json"
ENGINES = (Runtime.TENSORRT, Runtime.TENSORRT_RTX)
VERSION_DIGITS = 16
EVIDENCE_DIGITS = 12


@dataclass(frozen=True)
class Version:
    """A version, ready to be stored."""

    manifest: VersionManifest
    files: Mapping[str, Content]
    """Path in the version's folder -> content, without the manifest."""

    @property
    def manifest_json(self) -> bytes:
        """The content of `manifest.json`."""
        return (self.manifest.model_dump_json(indent=2) + "\n").encode()


def make_version(
    job: Job,
    board: Leaderboard,
    winner: Candidate,
    report: Path,
    provenance: Provenance | None = None,
    outcome: str = "",
) -> Version:
    """Collects everything that belongs to the winner.

    The version is named after what is served: model files, serving configuration, labels and options. The card and the
    report carry timings, which differ from run to run, so they lie in a folder named after their own content and do
    not change the version.

    Args:
        job: what was asked for.
        board: the final board.
        winner: its winner's row.
        report: folder of the report.
        provenance: where the winner comes from; it lies beside the card.
        outcome: how a retraining was judged, as JSON; it lies there too.

    Raises:
        StepError: the model's file is missing or not the one that was measured.
    """
    folder, model = _measured_file(winner)
    serving: dict[str, Content] = dict(_model_files(job.name, winner.runtime, folder, model))
    served_model = next(iter(serving))
    details = _variants(folder)
    signature = read_signature(model, job.task, details.input_shape if details else job.target.input_shape)
    if winner.runtime in BACKENDS:
        config = config_pbtxt(job.name, Path(served_model).name, winner.runtime, signature, job.target)
        serving[f"{REPOSITORY}/{job.name}/config.pbtxt"] = config.encode()
    fallback = _fallback(job, winner, model)
    serving |= fallback
    content = {
        "name": job.name,
        "task": job.task,
        "runtime": winner.runtime,
        "labels": {str(number): label for number, label in (details.labels if details else {}).items()},
        "options": winner.options,
        "files": {path: sha256_of(file) for path, file in serving.items()},
    }
    digest = hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
    manifest = VersionManifest(
        name=job.name,
        version=digest[:VERSION_DIGITS],
        content_sha256=digest,
        task=job.task,
        runtime=winner.runtime,
        techniques=winner.techniques,
        labels=details.labels if details else {},
        options=winner.options,
        model=served_model,
        model_card="",
        report="",
        engine=_engine(winner, board),
        fallback=next(iter(fallback), None),
        files=[],
    )
    evidence: dict[str, Content] = {path: report / path for path in sha256_files(report)}
    if provenance is not None:
        evidence[PROVENANCE] = (provenance.model_dump_json(indent=2) + "\n").encode()
    if outcome:
        evidence[OUTCOME] = outcome.encode()
    evidence |= training_files(job, winner)
    evidence["model_card.md"] = model_card(job, board, manifest, signature).encode()
    return _with_evidence(manifest, serving, evidence)


def _with_evidence(
    manifest: VersionManifest, serving: Mapping[str, Content], evidence: Mapping[str, Content]
) -> Version:
    hashes = {path: sha256_of(content) for path, content in evidence.items()}
    place = f"evidence-{sha256_listing(hashes)[:EVIDENCE_DIGITS]}"
    files = dict(serving) | {f"{place}/{path}": content for path, content in evidence.items()}
    listed = [
        PublishedFile(path=path, sha256=sha256_of(content), size_bytes=size_of(content))
        for path, content in sorted(files.items())
    ]
    update = {"model_card": f"{place}/model_card.md", "report": place, "files": listed}
    return Version(manifest.model_copy(update=update), files)


def _measured_file(winner: Candidate) -> tuple[Path, Path]:
    """The folder of the step that made the winner, and the model file in it."""
    if not winner.uri or not winner.file:
        raise StepError(f"{winner.id} won and has no model file; this is an error of the step that made it")
    try:
        folder = materialize(winner.uri)
        model = confined(folder, winner.file, winner.id)
    except UserError as error:
        raise StepError(f"the model of {winner.id} cannot be read: {error}") from error
    if not model.is_file():
        raise StepError(f"the model of {winner.id}, {model}, is gone; run again to make it anew")
    found = sha256_file(model)
    if winner.sha256 and found != winner.sha256:
        raise StepError(f"{model} has sha256 {found[:12]}..., but {winner.sha256[:12]}... was measured; run again")
    return folder, model


def _fallback(job: Job, winner: Candidate, engine: Path) -> dict[str, Content]:
    """Path in the version -> content of the ONNX file that an engine was built from, the file itself first.

    The same names and shapes as the engine's, so that a client of one is a client of the other.
    """
    card = winner.details.get("engine")
    if winner.runtime not in ENGINES or not isinstance(card, dict):
        return {}
    beside = sorted(engine.parent.glob("*.onnx"))
    onnx = next((path for path in beside if sha256_file(path) == card.get("onnx_sha256")), None)
    if onnx is None:
        return {}
    place = f"{FALLBACK}/{job.name}"
    files: dict[str, Content] = {f"{place}/1/model.onnx": onnx}
    for location in external_data_files(onnx):
        files[f"{place}/1/{location}"] = confined(onnx.parent, location, str(onnx))
    signature = read_signature(onnx, job.task, job.target.input_shape)
    config = config_pbtxt(job.name, "model.onnx", Runtime.ONNXRUNTIME, signature, job.target)
    files[f"{place}/config.pbtxt"] = config.encode()
    return files


def _engine(winner: Candidate, board: Leaderboard) -> dict[str, Any] | None:
    """What a person needs to know before they run an engine elsewhere."""
    card = winner.details.get("engine")
    if winner.runtime not in ENGINES or not isinstance(card, dict):
        return None
    known = ("module", "version", "compute_capabilities", "onnx_sha256", "precisions")
    gpu = (board.environment | winner.versions).get("gpu", "none")
    return {name: card[name] for name in known if name in card} | {"gpu": gpu}


def _variants(folder: Path) -> Manifest | None:
    """The manifest of the folder that the winner is in, which knows the labels."""
    return Manifest.read(folder) if (folder / VARIANTS).is_file() else None


def _model_files(name: str, runtime: Runtime, folder: Path, model: Path) -> dict[str, Path]:
    """Path in the version -> file; the model itself first."""
    backend = BACKENDS.get(runtime)
    place = f"{REPOSITORY}/{name}/1" if backend else "model"
    suffix = (backend.suffix if backend else "") or model.suffix
    files = {f"{place}/model{suffix}": model}
    if model.suffix == ".onnx":
        for location in external_data_files(model):
            files[f"{place}/{location}"] = confined(model.parent, location, str(model))
    if model.suffix == ".xml":
        files[f"{place}/model.bin"] = model.with_suffix(".bin")
    root = folder.resolve()
    missing = [file for file in files.values() if not file.is_file() or not file.resolve().is_relative_to(root)]
    if missing:
        raise StepError(f"{model} needs {missing[0].name}, which is not beside it; run again to make it anew")
    return files
