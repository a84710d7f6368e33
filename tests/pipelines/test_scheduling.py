"""What the compiled pipelines ask of a cluster: read from the platform spec that is uploaded."""

from pathlib import Path

import pytest
import yaml

from pipelines import scheduling
from pipelines.ladder.pipeline import TRAINERS

MANIFESTS = Path(__file__).parent.parent.parent / "manifests" / "pipelines"
ON_GPU = ("benchmark", "challenge", "engine")
TRAINS = ("amp", "backbone", "family", "distill")
SEARCHES = ("backbone", "family")
"""Those that time before they train."""
LIGHT = ("decide", "destination", "fetch", "keep", "leaderboard", "note", "pass-on", "prepare", "publish", "report")
LIGHT += ("champion", "conclude", "drift", "judge", "production")  # of retraining


def executors(pipeline):
    """By task name (without the number that tells two uses of one component apart): container and platform config."""
    spec, platform = yaml.safe_load_all((MANIFESTS / f"{pipeline}.yaml").read_text())
    configs = platform["platforms"]["kubernetes"]["deploymentSpec"]["executors"]
    containers = spec["deploymentSpec"]["executors"]
    assert sorted(configs) == sorted(containers), "a task has no place"
    for name, config in configs.items():
        parts = name.removeprefix("exec-").split("-")
        yield parts[0], containers[name]["container"], config


def tasks(spec):
    """Every task of a compiled pipeline, those of its inner DAGs included."""
    for component in (spec["root"], *spec["components"].values()):
        yield from component.get("dag", {}).get("tasks", {}).items()


@pytest.mark.parametrize("pipeline", ["compress", "ladder", "fleet", "retrain"])
def test_every_task_is_bounded_and_passes_pod_security_restricted(pipeline):
    for name, container, config in executors(pipeline):
        assert int(config["activeDeadlineSeconds"]) > 0, name
        assert config["securityContext"] == {"runAsUser": "10001", "runAsGroup": "10001", "runAsNonRoot": True}, name
        resources = container["resources"]
        assert resources["resourceCpuRequest"], name
        assert resources["resourceMemoryRequest"], name
        assert resources["resourceMemoryLimit"], name
        labels = dict(config["podMetadata"]["labels"])
        # Only the step that starts runs gets a token for KFP's API.
        assert labels.pop("access-ml-pipeline", None) == ("true" if name == "climb" else None)
        assert labels == {"app.kubernetes.io/part-of": "hasten"}


@pytest.mark.parametrize("pipeline", ["compress", "ladder", "retrain"])
def test_only_builds_benchmarks_and_training_ask_for_the_gpu_that_the_run_chooses(pipeline):
    seen = set()
    for name, container, config in executors(pipeline):
        seen.add(name)
        accelerator = container["resources"].get("accelerator")
        if name not in (*ON_GPU, *TRAINS):
            assert accelerator is None, name
            assert "nodeSelector" not in config
            continue
        assert accelerator["resourceCount"].startswith("{{$.inputs.parameters['"), name
        assert accelerator["resourceType"].startswith("{{$.inputs.parameters['")
        assert config["nodeSelector"]["nodeSelectorJson"]["componentInputParameter"]
        usual, chosen = config["tolerations"]
        assert usual == {"key": "nvidia.com/gpu", "operator": "Exists", "effect": "NoSchedule"}
        assert chosen["tolerationJson"]["componentInputParameter"]
        (shared,) = config["emptyDirMounts"]
        if name in TRAINS and name not in SEARCHES:
            assert "nodeAffinity" not in config  # a shared GPU trains as well, only later
            assert shared["sizeLimit"] == "8Gi"
            continue
        assert name in SEARCHES or container["image"].startswith("{{$.inputs.parameters['")
        (term,) = config["nodeAffinity"]
        expected = {"key": "nvidia.com/gpu.sharing-strategy", "operator": "NotIn", "values": ["mps", "time-slicing"]}
        assert term["matchExpressions"] == [expected], "what is timed on a shared GPU means nothing"
        size = "8Gi" if name in SEARCHES else "1Gi"
        assert shared == {"volumeName": "shm", "mountPath": "/dev/shm", "medium": "Memory", "sizeLimit": size}
    assert {"benchmark", "engine"} <= seen
    assert ("challenge" in seen) == (pipeline == "retrain")


@pytest.mark.parametrize("pipeline", ["compress", "ladder", "retrain"])
def test_every_task_is_tried_again_with_growing_pauses(pipeline):
    spec = next(yaml.safe_load_all((MANIFESTS / f"{pipeline}.yaml").read_text()))
    leaves = {
        name: task
        for name, task in tasks(spec)
        if "executorLabel" in spec["components"].get(task["componentRef"]["name"], {})
    }
    assert leaves
    for name, task in leaves.items():
        policy = task["retryPolicy"]
        kind = name.split("-")[0]
        profiles = {**dict.fromkeys(ON_GPU, scheduling.GPU_INFER), **dict.fromkeys(LIGHT, scheduling.LIGHT)}
        profiles |= dict.fromkeys(TRAINS, scheduling.GPU_TRAIN) | dict.fromkeys(SEARCHES, scheduling.GPU_SEARCH)
        expected = profiles.get(kind, scheduling.CPU)
        assert policy["maxRetryCount"] == expected.retries, name
        assert policy["backoffDuration"] == "30s"
        assert policy["backoffFactor"] == 2
        assert policy["backoffMaxDuration"] == "600s"


def test_the_form_in_the_ui_can_be_filled_without_reading_code():
    spec = next(yaml.safe_load_all((MANIFESTS / "ladder.yaml").read_text()))
    parameters = spec["root"]["inputDefinitions"]["parameters"]
    assert all(parameter.get("description") for parameter in parameters.values())
    required = [name for name, parameter in parameters.items() if not parameter.get("isOptional")]
    assert required == ["job"]
    assert parameters["gpus"]["defaultValue"] == "0"
    assert parameters["gpu_resource"]["defaultValue"] == "nvidia.com/gpu"
    assert parameters["gpu_node_selector"]["defaultValue"] == {}
    assert parameters["gpu_tolerations"]["defaultValue"] == []


def test_the_gpu_reaches_every_rung():
    spec = next(yaml.safe_load_all((MANIFESTS / "ladder.yaml").read_text()))
    rungs = [task for name, task in tasks(spec) if name.startswith("compress")]
    # Two of the user's model; one of each trained model, which has two inside.
    assert len(rungs) == 2 + 3 * len(TRAINERS)
    for task in rungs:
        for name in ("gpus", "gpu_resource", "gpu_node_selector", "gpu_tolerations", "gpu_image"):
            given = task["inputs"]["parameters"][name]["componentInputParameter"]
            assert given in (f"pipelinechannel--{name}", name)
