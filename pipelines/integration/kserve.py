"""KServe's InferenceService of a published model: Triton Inference Server on the version's model repository.

The storage URI names one version, so that what is served never changes behind the service's back; rolling out another
version is applying another file, and rolling back is applying the old one again.
"""

import re
from dataclasses import dataclass, field
from typing import Any

from components.core.contracts.job import Runtime
from components.core.errors import UserError
from components.publish.published import Published
from components.publish.triton import FALLBACK, REPOSITORY
from pipelines.scheduling import GPU_RESOURCE

RUNTIME = "kserve-tritonserver"
"""KServe's own ClusterServingRuntime for Triton."""
FORMAT = {"name": "triton", "version": "2"}
"""A whole model repository with its config.pbtxt, as that runtime calls it."""
TRITON_USER = 1000
"""``triton-server`` in NVIDIA's image."""
_ENGINES = (Runtime.TENSORRT, Runtime.TENSORRT_RTX)
_MAX_NAME = 52
"""Characters: KServe makes host names with suffixes of its own from a service's name."""


@dataclass(frozen=True)
class Serving:
    """How a model is to be served; resources are Kubernetes' quantities."""

    name: str = ""
    """Of the service; empty: the model's."""
    namespace: str = ""
    runtime: str = RUNTIME
    account: str = ""
    """Service account that may read the store: by workload identity or with a Secret, as KServe describes it."""
    cpu: str = "2"
    memory: str = "4Gi"
    gpus: int = 0
    gpu_resource: str = GPU_RESOURCE
    node_selector: dict[str, str] = field(default_factory=dict)
    fallback: bool = False
    """Serve the ONNX file that an engine was built from, on GPUs that the engine was not built for."""


def inference_service(published: Published, serving: Serving) -> dict[str, Any]:
    """The InferenceService as it is applied; the same version and settings give the same document.

    Raises:
        UserError: the version is not in S3, or Triton has no backend for it.
    """
    manifest = published.manifest
    repository = _repository(published, serving.fallback)
    if not published.uri.startswith("s3://"):
        raise UserError(f"{published.uri}: the cluster cannot read it; publish to s3://bucket/prefix")
    resources: dict[str, str] = {"cpu": serving.cpu, "memory": serving.memory}
    if serving.gpus:
        resources[serving.gpu_resource] = str(serving.gpus)
    predictor: dict[str, Any] = {
        "securityContext": {
            "runAsNonRoot": True,
            "runAsUser": TRITON_USER,
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        "model": {
            "modelFormat": FORMAT,
            "runtime": serving.runtime,
            "protocolVersion": "v2",
            "storageUri": f"{published.uri}/{repository}",
            "resources": {"requests": resources, "limits": resources},
            "securityContext": {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}},
        },
    }
    if serving.account:
        predictor["serviceAccountName"] = serving.account
    if serving.node_selector:
        predictor["nodeSelector"] = serving.node_selector
    if serving.gpus:
        predictor["tolerations"] = [{"key": GPU_RESOURCE, "operator": "Exists", "effect": "NoSchedule"}]
    metadata: dict[str, Any] = {
        "name": _service_name(serving.name or manifest.name, given=bool(serving.name)),
        "labels": {"app.kubernetes.io/part-of": "hasten", "app.kubernetes.io/version": manifest.version},
        "annotations": _annotations(published),
    }
    if serving.namespace:
        metadata["namespace"] = serving.namespace
    return {
        "apiVersion": "serving.kserve.io/v1beta1",
        "kind": "InferenceService",
        "metadata": metadata,
        "spec": {"predictor": predictor},
    }


def _repository(published: Published, fallback: bool) -> str:
    """The model repository to serve, as the version has it."""
    manifest = published.manifest
    if fallback:
        if manifest.fallback is None:
            raise UserError(
                f"--fallback: {published.uri} has no ONNX file beside an engine (its runtime is {manifest.runtime}); "
                "leave the option out"
            )
        return FALLBACK
    if not manifest.model.startswith(f"{REPOSITORY}/"):
        way_out = "add --fallback to serve the ONNX file that it was built from" if manifest.fallback else ""
        raise UserError(
            f"{published.uri}: Triton has no backend for {manifest.runtime}; "
            + (way_out or "publish a model for onnxruntime, openvino or tensorrt")
        )
    return REPOSITORY


def _service_name(text: str, *, given: bool) -> str:
    """A DNS label; a model's name becomes one, a name that was asked for must be one."""
    name = text if given else re.sub(r"[^a-z0-9]+", "-", text)[:_MAX_NAME].strip("-")
    name = name if given or name[:1].isalpha() else f"m-{name}"[:_MAX_NAME].strip("-")
    if not re.fullmatch(r"[a-z]([a-z0-9-]*[a-z0-9])?", name) or len(name) > _MAX_NAME:
        raise UserError(
            f"--name: given {text!r}, accepted: at most {_MAX_NAME} lower case letters, digits and dashes, the first a "
            "letter"
        )
    return name


def _annotations(published: Published) -> dict[str, str]:
    """Where the model comes from and, of an engine, what it needs; a text of each."""
    manifest = published.manifest
    engine = manifest.engine or {}
    known = {
        "hasten/model": manifest.name,
        "hasten/runtime": str(manifest.runtime),
        "hasten/techniques": ",".join(manifest.techniques),
        "hasten/run-id": published.provenance.run_id,
        "hasten/report": published.report_uri,
        "hasten/content-sha256": manifest.content_sha256,
    }
    if manifest.runtime in _ENGINES:
        known |= {
            "hasten/tensorrt": str(engine.get("version", "")),
            "hasten/gpu": str(engine.get("gpu", "")),
            "hasten/compute-capabilities": ",".join(map(str, engine.get("compute_capabilities", []))),
        }
    return {name: value for name, value in known.items() if value}
