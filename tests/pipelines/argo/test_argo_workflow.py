"""`hasten argo`: against Hera's models and Kubernetes' schemas, its references, its text."""

import itertools
import json
import re
from typing import Any

import kubernetes_validate
import pytest
import yaml
from hera.workflows import models as argo

from components.core.contracts.job import Job
from components.core.errors import UserError
from pipelines import scheduling
from pipelines.argo.steps import find_step
from pipelines.argo.workflow import Cluster, workflow_template
from pipelines.cli import errors
from pipelines.cli.app import app
from pipelines.cli.main import COMMANDS

assert COMMANDS
GPU = Cluster(
    namespace="team-a",
    priority_class="hasten-batch",
    gpus=1,
    gpu_resource="nvidia.com/mig-1g.10gb",
    node_selector={"nvidia.com/gpu.product": "NVIDIA-L4"},
    tolerations=({"key": "team", "operator": "Equal", "value": "ml", "effect": "NoExecute"},),
    gpu_image="registry.local/tensorrt:1",
)
JOB = {
    "name": "cells_v2",
    "model": {"onnx": "s3://models/cells.onnx"},
    "data": {
        split: {"annotations": f"s3://data/{split}.json", "images": f"s3://data/{split}"} for split in ("train", "test")
    },
    "target": {"runtimes": ["tensorrt"], "input_shape": [1, 3, 320, 320]},
    "goal": {"min_speedup": "2x", "max_accuracy_drop": 0.01},
}


@pytest.fixture(scope="module")
def on_gpu() -> dict[str, Any]:
    return workflow_template(GPU, "s3://models/argo")


@pytest.fixture(scope="module")
def on_cpu() -> dict[str, Any]:
    return workflow_template(Cluster())


def templates(document: dict[str, Any], kind: str) -> list[dict[str, Any]]:
    return [each for each in document["spec"]["templates"] if kind in each]


def names(parameters: dict[str, Any]) -> set[str]:
    return {each["name"] for each in parameters.get("parameters", [])}


def step_of(template: dict[str, Any]) -> str:
    return template["container"]["args"][0]


def pod_of(document: dict[str, Any], template: dict[str, Any]) -> dict[str, Any]:
    """The pod that Argo makes of a template, without its own containers."""
    spec, shared = {}, document["spec"]
    for name in ("affinity", "nodeSelector", "tolerations", "volumes", "activeDeadlineSeconds"):
        if name in template:
            spec[name] = template[name]
    if "podPriorityClassName" in shared:
        spec["priorityClassName"] = shared["podPriorityClassName"]
    spec |= {name: shared[name] for name in ("serviceAccountName", "securityContext", "automountServiceAccountToken")}
    container = {"name": "main", **template["container"]}
    metadata = {"name": template["name"], **shared["podMetadata"]}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec | {"containers": [container]}}


def test_heras_models_read_back_what_was_written(on_gpu, on_cpu):
    for document in (on_gpu, on_cpu):
        text = yaml.safe_dump(document, sort_keys=False)
        read = argo.WorkflowTemplate.model_validate(yaml.safe_load(text))
        assert json.loads(read.model_dump_json(exclude_none=True, by_alias=True)) == document


def test_pods_are_kubernetes_own_and_restricted(on_gpu, on_cpu):
    for document, version in itertools.product((on_gpu, on_cpu), ("1.30", "1.34")):
        for template in templates(document, "container"):
            pod = pod_of(document, template)
            kubernetes_validate.validate(pod, version, strict=True)
            (container,) = pod["spec"]["containers"]
            assert pod["spec"]["securityContext"]["runAsNonRoot"] is True
            assert pod["spec"]["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
            assert container["securityContext"] == {
                "allowPrivilegeEscalation": False,
                "capabilities": {"drop": ["ALL"]},
                "readOnlyRootFilesystem": True,
            }
            assert "/tmp" in {mount["mountPath"] for mount in container["volumeMounts"]}


def test_the_same_pipeline_gives_the_same_text(on_gpu):
    assert yaml.safe_dump(workflow_template(GPU, "s3://models/argo")) == yaml.safe_dump(on_gpu)


def test_every_reference_leads_somewhere(on_gpu):
    known = {each["name"]: each for each in on_gpu["spec"]["templates"]}
    assert len(known) == len(on_gpu["spec"]["templates"])
    reached, waiting = set(), [on_gpu["spec"]["entrypoint"]]
    while waiting:
        name = waiting.pop()
        reached.add(name)
        waiting += [
            task["template"] for task in known[name].get("dag", {}).get("tasks", []) if task["template"] not in reached
        ]
    assert reached == set(known), "templates that nothing uses"
    entry = known[on_gpu["spec"]["entrypoint"]]
    assert names(entry["inputs"]) <= names(on_gpu["spec"]["arguments"])
    for template in known.values():
        inputs = {f"inputs.parameters.{name}" for name in names(template["inputs"])}
        if "container" in template:
            tags = set(re.findall(r"\{\{([^}]+)\}\}", json.dumps(template["container"])))
            assert tags <= inputs | {"workflow.parameters.root", "pod.name"}
            assert inputs <= tags
            continue
        tasks = {task["name"]: task for task in template["dag"]["tasks"]}
        made = {
            f"tasks.{name}.outputs.parameters.{output}"
            for name, task in tasks.items()
            for output in names(known[task["template"]]["outputs"])
        }
        for name, task in tasks.items():
            called = known[task["template"]]
            given = names(task["arguments"])
            needed = {each["name"] for each in called["inputs"].get("parameters", []) if "default" not in each}
            assert needed <= given <= names(called["inputs"]), name
            assert set(task.get("dependencies", [])) <= set(tasks) - {name}
            tags = set(re.findall(r"\{\{([^}]+)\}\}", json.dumps(task)))
            assert tags <= inputs | made, name
            for tag in tags - inputs:  # what a task uses, it waits for
                assert tag.split(".")[1] in task["dependencies"], name
        for output in template["outputs"].get("parameters", []):
            text = json.dumps(output["valueFrom"])
            found = set(re.findall(r"\{\{([^}]+)\}\}", text)) | {
                f"tasks.{task}.outputs.parameters.{key}"
                for task, key in re.findall(r"tasks\['([\w-]+)'\]\.outputs\.parameters\['([\w-]+)'\]", text)
            }
            assert found
            assert found <= made


def test_the_steps_are_those_of_the_kfp_ladder(on_cpu):
    from pipelines.ladder.pipeline import ladder

    executors = ladder.pipeline_spec.deployment_spec["executors"].values()
    expected = {
        list(each["container"]["args"])[list(each["container"]["args"]).index("--function_to_execute") + 1]
        for each in executors
    }
    steps = {step_of(template): template for template in templates(on_cpu, "container")}
    assert set(steps) == expected
    for name, template in steps.items():
        component = find_step(name).component_spec
        assert names(template["inputs"]) == set(component.inputs)
        declared = names(template["outputs"])
        assert declared <= set(component.outputs or {})
    with pytest.raises(UserError, match="step 'teleport': there is none; there are: "):
        find_step("teleport")


def test_profiles_are_those_of_scheduling(on_cpu, on_gpu):
    steps = {step_of(template): template for template in templates(on_cpu, "container")}
    for name, profile in [
        ("prepare", scheduling.LIGHT),
        ("export", scheduling.CPU),
        ("engine", scheduling.GPU_INFER),
        ("benchmark", scheduling.GPU_INFER),
    ]:
        resources = steps[name]["container"]["resources"]
        assert resources["requests"] == {"cpu": profile.cpus, "memory": profile.memory}
        assert resources["limits"] == {"memory": profile.memory_limit}
        assert steps[name]["activeDeadlineSeconds"] == profile.timeout
        retries = steps[name]["retryStrategy"]
        assert (retries["limit"], retries["backoff"]) == (str(profile.retries), {"duration": "30s", "factor": "2"})
        assert "affinity" not in steps[name]
        assert "tolerations" not in steps[name]
    cached = {name for name, template in steps.items() if "--cache" in template["container"]["args"]}
    assert {"fetch", "export", "surgery", "int8", "engine", "benchmark"} <= cached
    assert not {"prepare", "decide", "publish"} & cached
    steps = {step_of(template): template for template in templates(on_gpu, "container")}
    for name in ("engine", "benchmark"):
        template = steps[name]
        assert template["container"]["image"] == "registry.local/tensorrt:1"
        assert template["container"]["resources"]["limits"]["nvidia.com/mig-1g.10gb"] == "1"
        assert template["nodeSelector"] == {"nvidia.com/gpu.product": "NVIDIA-L4"}
        assert [each["key"] for each in template["tolerations"]] == ["nvidia.com/gpu", "team"]
        assert "nvidia.com/gpu.sharing-strategy" in json.dumps(template["affinity"])
        assert {"name": "shm", "mountPath": "/dev/shm"} in template["container"]["volumeMounts"]
    assert "nvidia" not in json.dumps(steps["export"]["container"]["resources"])
    assert "nodeSelector" not in steps["export"]
    assert on_gpu["spec"]["podPriorityClassName"] == "hasten-batch"
    assert "podPriorityClassName" not in on_cpu["spec"]


def test_no_secret_stands_in_it(on_gpu):
    for template in templates(on_gpu, "container"):
        for variable in template["container"]["env"]:
            assert "value" not in variable
            (reference,) = variable["valueFrom"].values()
            assert reference["optional"] is True


def test_the_command_prints_template_run_and_schedule(tmp_path, capsys, monkeypatch):
    (tmp_path / "job.yaml").write_text(yaml.safe_dump(JOB))

    def hasten(*arguments: Any) -> tuple[int, str, str]:
        monkeypatch.setattr("sys.argv", ["hasten", "argo", *map(str, arguments)])
        code = errors.run(app)
        out = capsys.readouterr()
        return code, out.out, out.err

    code, out, err = hasten("--root", "s3://models/argo", "--name", "fast")
    assert (code, err) == (0, "")
    template = argo.WorkflowTemplate.model_validate(yaml.safe_load(out))
    assert template.metadata.name == "fast"
    code, out, _ = hasten(tmp_path / "job.yaml", "--name", "fast", "--rungs", "int8")
    run = argo.Workflow.model_validate(yaml.safe_load(out))
    assert (code, run.metadata.generate_name) == (0, "hasten-cells-v2-")
    given = {each.name: each.value for each in run.spec.arguments.parameters}
    job = Job.model_validate_json(given["job"])
    assert (job.name, [str(rung) for rung in job.ladder.rungs]) == ("cells_v2", ["int8"])
    assert set(given) <= {each.name for each in template.spec.arguments.parameters}
    code, out, _ = hasten(tmp_path / "job.yaml", "--cron", "0  2 * * *", "--root", "s3://b/x")
    cron = argo.CronWorkflow.model_validate(yaml.safe_load(out))
    assert (code, cron.spec.schedules, cron.spec.concurrency_policy) == (0, ["0 2 * * *"], "Forbid")
    assert cron.spec.starting_deadline_seconds == 0
    assert cron.spec.workflow_spec.workflow_template_ref.name == "hasten-ladder"
    for arguments, words in [
        ((tmp_path / "job.yaml", "--cron", "0 0 2 * * *"), "--cron: given '0 0 2 * * *', accepted: five fields"),
        (("--root", "/tmp"), "--root: given '/tmp', accepted: s3://bucket/prefix"),
        (("--cron", "0 2 * * *"), "--cron, --mode and --rungs go with a job"),
        ((tmp_path / "job.yaml", "--mode", "fast"), "mode: given 'fast', accepted: stop-when-met, exhaustive"),
        ((tmp_path / "none.yaml",), "none.yaml"),
    ]:
        code, out, err = hasten(*arguments)
        assert (code, out, err.count("\n")) == (2, "", 1)
        assert words in err
    (tmp_path / "local.yaml").write_text(yaml.safe_dump(JOB | {"model": {"onnx": "/home/me/m.onnx"}}))
    assert "the cluster cannot read this machine's files" in hasten(tmp_path / "local.yaml")[2]
