"""Names of a compiled pipeline's components that depend on nothing but the pipeline.

KFP tells components of one name apart by numbers, which it gives out in the order of a protobuf map. That order differs
from process to process, and so do the numbers once a pipeline calls one that calls another twice. Here they follow the
DAG.
"""

import re
from copy import deepcopy
from pathlib import Path
from typing import Any

import yaml

_NUMBERS = re.compile(r"(-\d+)+$")


def name_anew(path: Path) -> None:
    """Renames components and executors of a file that KFP's compiler wrote: IR YAML or Kubernetes resources."""
    text = path.read_text()
    head = re.match(r"(?:#.*\n)*", text)
    documents = list(yaml.safe_load_all(text))
    for spec, platform in _pipelines(documents):
        labels = _rename(spec)
        _rename_executors(spec, platform, labels)
    body = yaml.dump_all(documents, sort_keys=True)
    path.write_text((head.group() if head else "") + body)


def _pipelines(documents: list[Any]) -> list[tuple[dict[str, Any], dict[str, Any]]]:
    """Pipeline specs with their platform specs, in either form."""
    if documents[0].get("root"):
        return [(documents[0], documents[1] if len(documents) > 1 else {})]
    specs = [document["spec"] for document in documents if "pipelineSpec" in document.get("spec", {})]
    return [(spec["pipelineSpec"], spec.get("platformSpec", {})) for spec in specs]


def _rename(spec: dict[str, Any]) -> dict[str, list[str]]:
    """Renames the components; old label of an executor -> new ones, one for each component that used it."""
    components: dict[str, Any] = spec["components"]
    named: dict[str, str] = {}
    new: dict[str, Any] = {}

    def visit(dag: dict[str, Any]) -> None:
        for _, task in sorted(dag["tasks"].items()):
            old = task["componentRef"]["name"]
            if old not in named:
                named[old] = _unused(_NUMBERS.sub("", old), new)
                new[named[old]] = components[old]
                if "dag" in components[old]:
                    visit(components[old]["dag"])
            task["componentRef"]["name"] = named[old]

    visit(spec["root"]["dag"])
    spec["components"] = new
    labels: dict[str, list[str]] = {}
    for name, component in new.items():
        if "executorLabel" in component:
            label = f"exec-{name.removeprefix('comp-')}"
            labels.setdefault(component["executorLabel"], []).append(label)
            component["executorLabel"] = label
    return labels


def _rename_executors(spec: dict[str, Any], platform: dict[str, Any], labels: dict[str, list[str]]) -> None:
    holders = [spec["deploymentSpec"], *(each["deploymentSpec"] for each in platform.get("platforms", {}).values())]
    for holder in holders:
        before = holder["executors"]
        holder["executors"] = {label: deepcopy(before[old]) for old in before for label in labels.get(old, [])}


def _unused(base: str, taken: dict[str, Any]) -> str:
    name, number = base, 1
    while name in taken:
        number += 1
        name = f"{base}-{number}"
    return name
