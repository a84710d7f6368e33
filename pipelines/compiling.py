"""Compiles the pipelines and steps to YAML that is the same for the same code."""

import hashlib
import importlib
from collections.abc import Sequence
from pathlib import Path

from pipelines.component_names import name_anew

PIPELINES = ("compress", "ladder", "fleet", "retrain")
NESTED_TWICE = ("retrain",)
"""Pipelines that call pipelines that call pipelines: KFP numbers their components by chance."""
STEPS = {
    "fetch": ("fetch",),
    "export": ("export",),
    "surgery": ("surgery",),
    "int8": ("int8",),
    "fp16": ("fp16",),
    "amp": ("amp",),
    "backbone": ("backbone",),
    "family": ("family",),
    "distill": ("distill",),
    "engine": ("engine",),
    "benchmark": ("benchmark", "challenge"),
    "leaderboard": ("decide", "leaderboard", "judge"),
    "report": ("report",),
    "publish": ("publish", "production", "champion"),
    "drift": ("drift",),
}
"""Components by the folder that they are defined in."""


def compile_pipelines(out: Path, names: Sequence[str] = PIPELINES) -> list[Path]:
    """Writes `<pipeline>.yaml` for each of the pipelines into `out`; returns the paths."""
    from kfp import compiler

    out.mkdir(parents=True, exist_ok=True)
    paths = []
    for name in names:
        path = out / f"{name}.yaml"
        compiler.Compiler().compile(_pipeline(name), str(path))
        if name in NESTED_TWICE:
            name_anew(path)
        paths.append(path)
    return paths


def compile_resources(out: Path, namespace: str) -> list[Path]:
    """Writes each pipeline as Kubernetes resources, Pipeline and PipelineVersion, for GitOps; returns the paths.

    The version is named by a hash of what was compiled: applying the same code again changes nothing, and applying new
    code adds a version beside the old ones.

    Args:
        out: folder.
        namespace: of the resources: KFP's own, or a profile's where KFP keeps pipelines in Kubernetes.
    """
    from kfp import compiler
    from kfp.compiler.compiler_utils import KubernetesManifestOptions

    out.mkdir(parents=True, exist_ok=True)
    paths = []
    for name, plain in zip(PIPELINES, compile_pipelines(out), strict=True):
        digest = hashlib.sha256(plain.read_bytes()).hexdigest()[:12]
        plain.unlink()
        path = out / f"{name}-resources.yaml"
        options = KubernetesManifestOptions(
            pipeline_name=f"hasten-{name}",
            pipeline_version_name=f"hasten-{name}-{digest}",
            namespace=namespace,
            include_pipeline_manifest=True,
        )
        compiler.Compiler().compile(
            _pipeline(name),
            str(path),
            kubernetes_manifest_format=True,
            kubernetes_manifest_options=options,
        )
        if name in NESTED_TWICE:
            name_anew(path)
        paths.append(path)
    return paths


def compile_components(out: Path) -> list[Path]:
    """Writes `<component>.yaml` for each step, to load with `kfp.components.load_component_from_file`."""
    from kfp import compiler

    out.mkdir(parents=True, exist_ok=True)
    paths = []
    for folder, names in STEPS.items():
        module = importlib.import_module(f"components.{folder}.component")
        for name in names:
            path = out / f"{name}.yaml"
            compiler.Compiler().compile(getattr(module, name), str(path))
            paths.append(path)
    return paths


def _pipeline(name: str) -> object:
    return getattr(importlib.import_module(f"pipelines.{name}.pipeline"), name)
