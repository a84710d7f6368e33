"""hasten's pipelines on the server: each uploaded once for each version of the code."""

import hashlib
import importlib.metadata
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple
from urllib.parse import urlparse

from components.core.contracts.job import Job
from components.core.errors import UserError

if TYPE_CHECKING:
    from kfp import Client

LADDER, RETRAIN = "ladder", "retrain"
WORDS = {
    LADDER: "Makes a trained model fast enough to ship",
    RETRAIN: "Trains a published model on new data; replaces it only by a better one",
}
"""Pipelines that a job can be run by, and what the server's list says of them."""
EXPERIMENT = "hasten"


class Uploaded(NamedTuple):
    """A version of the pipeline on the server."""

    pipeline_id: str
    version_id: str


def ensure_uploaded(client: "Client", pipeline: str = LADDER) -> Uploaded:
    """A pipeline of `WORDS` as this code compiles it; uploads what the server does not have."""
    from pipelines.compiling import compile_pipelines

    with tempfile.TemporaryDirectory(prefix="hasten-compiled-") as folder:
        (package,) = compile_pipelines(Path(folder), [pipeline])
        return ensure_package(client, f"hasten-{pipeline}", package, WORDS[pipeline])


def ensure_package(client: "Client", pipeline: str, package: Path, words: str) -> Uploaded:
    """A compiled pipeline on the server; uploaded if it is not there.

    The version is named by the compiled pipeline's hash, so that the same code, with the same images, is one version.

    Args:
        client: of `connect`.
        pipeline: its name on the server.
        package: the compiled YAML.
        words: what it is, for the server's list.
    """
    digest = hashlib.sha256(package.read_bytes()).hexdigest()[:12]
    name = f"{importlib.metadata.version('hasten')}-{digest}"
    pipeline_id = client.get_pipeline_id(pipeline)
    if pipeline_id is None:
        # The server makes a first version of it, with a name of its own; ours comes beside it.
        pipeline_id = client.upload_pipeline(str(package), pipeline, words).pipeline_id
    found = _version(client, pipeline_id, name)
    if found is None:
        found = client.upload_pipeline_version(str(package), name, pipeline_id=pipeline_id).pipeline_version_id
    return Uploaded(pipeline_id, found)


def check_reachable(job: Job) -> None:
    """Refuses a job that names files of this machine, which the cluster's nodes do not have.

    Raises:
        UserError: with each field that must be a URI.
    """
    local = [
        f"{field}: {value}"
        for field, value in places(job).items()
        if urlparse(value).scheme not in ("s3", "http", "https")
    ]
    if local:
        raise UserError(
            f"the cluster cannot read this machine's files ({'; '.join(local)}); copy them to S3 and name them "
            "s3://bucket/..."
        )


def places(job: Job) -> Mapping[str, str]:
    """Every place that a job reads from or writes to, by field."""
    found = {
        "model.weights": job.model.weights,
        "model.program": job.model.program,
        "model.onnx": job.model.onnx,
        **{
            f"data.{name}.{field}": getattr(split, field)
            for name, split in (("train", job.data.train), ("test", job.data.test))
            for field in type(split).model_fields
        },
        "preprocess.tokenizer": job.preprocess.tokenizer,
        "publish.to": job.publish.to if job.publish else None,
    }
    return {field: value for field, value in found.items() if value}


def arguments(job: Job, gpu: Mapping[str, object], command: str) -> dict[str, object]:
    """The pipeline's arguments: the job as JSON, the GPU, and what reproduces the run."""
    return {"job": job.model_dump_json(exclude_defaults=True), "command": command, **gpu}


def gpu_arguments(count: int, resource: str, product: str, image: str) -> dict[str, object]:
    """The pipeline's GPU parameters; those that are as usual are left to its defaults."""
    chosen: dict[str, object] = {}
    if count:
        chosen |= {"gpus": str(count), "gpu_resource": resource}
    if product:
        chosen["gpu_node_selector"] = {"nvidia.com/gpu.product": product}
    if image:
        chosen["gpu_image"] = image
    return chosen


def _version(client: "Client", pipeline_id: str, name: str) -> str | None:
    token = ""
    while True:
        page = client.list_pipeline_versions(pipeline_id, page_token=token, page_size=100)
        for version in page.pipeline_versions or []:
            if version.display_name == name:
                return str(version.pipeline_version_id)
        token = page.next_page_token or ""
        if not token:
            return None
