"""The pipelines as IR YAML: the same for the same code, and of the shape that later rungs plug into."""

import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from components.core.contracts.job import Rung
from pipelines.ladder.pipeline import TRAINERS

ROOT = Path(__file__).parent.parent.parent


@pytest.fixture(scope="module")
def compiled(tmp_path_factory) -> Path:
    """In a process of its own: Hera, which other tests import, changes how PyYAML writes text of several lines."""
    out = tmp_path_factory.mktemp("compiled")
    command = [sys.executable, "-m", "pipelines.cli.main", "compile", "--out", out]
    subprocess.run(command, cwd=ROOT, capture_output=True, check=True)
    return out


def components_of(path: Path) -> dict[str, dict]:
    return next(yaml.safe_load_all(path.read_text()))["components"]


def tasks_of(path: Path) -> dict[str, dict]:
    return next(yaml.safe_load_all(path.read_text()))["root"]["dag"]["tasks"]


def without_sdk(path: Path) -> str:
    """The text without KFP's own version, which may differ in its last digit."""
    return re.sub(r"^sdkVersion: .*$", "", path.read_text(), flags=re.MULTILINE)


def test_compiling_twice_gives_the_same_bytes(compiled, tmp_path):
    done = subprocess.run(
        [sys.executable, "-m", "pipelines.cli.main", "compile", "--out", tmp_path],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    for name in ("ladder.yaml", "compress.yaml", "fleet.yaml", "retrain.yaml"):
        assert (tmp_path / name).read_bytes() == (compiled / name).read_bytes()


def test_what_is_kept_in_manifests_is_up_to_date(compiled):
    kept = ROOT / "manifests" / "pipelines"
    for name in ("ladder.yaml", "compress.yaml", "fleet.yaml", "retrain.yaml"):
        assert without_sdk(kept / name) == without_sdk(compiled / name), "run `make compile` and commit the result"


def test_the_shape_of_compress(compiled):
    tasks = tasks_of(compiled / "compress.yaml")
    assert list(tasks) == ["benchmark", "condition-branches-1", "engine", "export", "surgery"]
    assert tasks["surgery"]["dependentTasks"] == ["export"]
    assert tasks["condition-branches-1"]["dependentTasks"] == ["surgery"]
    assert tasks["engine"]["dependentTasks"] == ["condition-branches-1"]
    assert tasks["benchmark"]["dependentTasks"] == ["engine"]


def test_the_shape_of_the_ladder(compiled):
    tasks = tasks_of(compiled / "ladder.yaml")
    branches = [name for name in tasks if name.startswith("condition-branches")]
    assert set(tasks) - set(branches) == {
        "prepare", "fetch", "export", "benchmark", "decide", "leaderboard", "report", "destination",
        *(f"decide-{number}" for number in range(2, len(Rung) + 1)),
    }  # fmt: skip
    assert len(branches) == len(Rung) + 1  # and publish
    parts = components_of(compiled / "ladder.yaml")
    inner = [name for part in parts.values() for name in part.get("dag", {}).get("tasks", {})]
    climbs = [name for name in inner if re.fullmatch(r"compress(-\d+)?", name)]
    # Of the user's model and of what each training rung made, each in two ways.
    assert len(climbs) == 2 * (1 + len(TRAINERS))
    trained = parts["comp-compress-trained"]["dag"]["tasks"]
    assert list(trained) == ["condition-branches-1"]  # compressed, or noted that there is nothing to compress


def test_the_shape_of_retrain(compiled):
    tasks = tasks_of(compiled / "retrain.yaml")
    assert set(tasks) == {"prepare-retraining", "production", "champion", "fetch", "drift", "condition-branches-1"}
    assert tasks["fetch"]["dependentTasks"] == ["champion", "prepare-retraining"]  # the champion's weights, new data
    parts = components_of(compiled / "retrain.yaml")
    assert set(parts["comp-contend"]["dag"]["tasks"]) == {
        "amp", "benchmark", "challenge", "compress-trained", "export", "judge", "leaderboard", "report", "settle",
    }  # fmt: skip
    (publish,) = [
        task
        for part in parts.values()
        for name, task in part.get("dag", {}).get("tasks", {}).items()
        if name == "publish"
    ]
    # No other version than the one that lost is replaced, and nothing of it comes from a cache.
    assert set(publish["inputs"]["parameters"]) >= {"replaces", "outcome", "board"}
    assert not publish.get("cachingOptions", {}).get("enableCache")
    assert not tasks["production"].get("cachingOptions", {}).get("enableCache")
    assert tasks["champion"]["cachingOptions"]["enableCache"]  # a version never changes
    parameters = next(yaml.safe_load_all((compiled / "retrain.yaml").read_text()))["root"]["inputDefinitions"]
    required = [name for name, each in parameters["parameters"].items() if not each.get("isOptional")]
    assert required == ["job"]
    assert all(each["description"] for each in parameters["parameters"].values())


def test_caching(compiled):
    tasks = tasks_of(compiled / "ladder.yaml")
    cached = {name: bool(task.get("cachingOptions", {}).get("enableCache")) for name, task in tasks.items()}
    assert not cached["prepare"]
    assert not cached["decide"]
    assert cached["fetch"]
    assert cached["export"]
    # What a benchmark measured is reused only within one run: its key holds the run's id.
    assert "run_id" in tasks["benchmark"]["inputs"]["parameters"]


def test_parameters_have_defaults_and_words(compiled):
    document = next(yaml.safe_load_all((compiled / "ladder.yaml").read_text()))
    parameters = document["root"]["inputDefinitions"]["parameters"]
    gpu = {"gpus", "gpu_resource", "gpu_node_selector", "gpu_tolerations", "gpu_image"}
    assert set(parameters) == {"job", "mode", "rungs", "command", "code_version", "run_id", "started"} | gpu
    assert [name for name, each in parameters.items() if not each.get("isOptional")] == ["job"]
    assert all(each["description"] for each in parameters.values())
    for name, component in components_of(compiled / "ladder.yaml").items():
        if "executorLabel" in component:
            inputs = component.get("inputDefinitions", {}).get("parameters", {})
            assert all(each.get("description") for each in inputs.values()), name


def test_no_step_installs_anything_when_it_runs(compiled):
    document = next(yaml.safe_load_all((compiled / "ladder.yaml").read_text()))
    for executor in document["deploymentSpec"]["executors"].values():
        container = executor["container"]
        assert "pip install" not in " ".join(container.get("command", []))
        # The image of what runs on the GPU is chosen per run.
        assert container["image"].startswith(("ghcr.io/hasten/hasten-python-", "{{$.inputs.parameters['"))
    parameters = document["root"]["inputDefinitions"]["parameters"]
    assert parameters["gpu_image"]["defaultValue"].startswith("ghcr.io/hasten/hasten-python-torch:")


def test_resources_for_gitops_name_their_version_by_what_was_compiled(tmp_path):
    from pipelines.compiling import compile_resources

    paths = compile_resources(tmp_path, "team-a")
    assert [path.name for path in paths] == [
        f"{name}-resources.yaml" for name in ("compress", "ladder", "fleet", "retrain")
    ]
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(path.name for path in paths)
    pipeline, version = yaml.safe_load_all(paths[1].read_text())
    assert (pipeline["kind"], pipeline["metadata"]["name"]) == ("Pipeline", "hasten-ladder")
    assert version["kind"] == "PipelineVersion"
    assert re.fullmatch(r"hasten-ladder-[0-9a-f]{12}", version["metadata"]["name"])
    assert {each["metadata"]["namespace"] for each in (pipeline, version)} == {"team-a"}
    assert version["spec"]["pipelineSpec"]["pipelineInfo"]["name"] == "ladder"
    assert version["spec"]["platformSpec"]["platforms"]["kubernetes"]["deploymentSpec"]["executors"]
    before = [path.read_bytes() for path in paths]
    assert [path.read_bytes() for path in compile_resources(tmp_path, "team-a")] == before


def test_every_step_is_a_component_of_its_own(tmp_path):
    from kfp import components

    from pipelines.compiling import STEPS, compile_components

    paths = compile_components(tmp_path)
    assert sorted(path.stem for path in paths) == sorted(name for names in STEPS.values() for name in names)
    folders = {path.parent.name for path in (ROOT / "components").glob("*/component.py")}
    assert set(STEPS) == folders
    for path in paths:
        loaded = components.load_component_from_file(str(path))
        assert loaded.name == path.stem
        assert loaded.component_spec.outputs
