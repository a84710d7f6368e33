"""Declared schedules: the manifests are sound, and the command in them makes the server equal to the file."""

import json
import subprocess
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml
from test_kustomize import MANIFESTS, VERSIONS, assert_restricted, built, one, pytestmark

from pipelines.cli import errors
from pipelines.cli.app import app
from pipelines.cli.main import COMMANDS

assert COMMANDS
__all__ = ["pytestmark"]


@pytest.fixture
def pod() -> dict[str, Any]:
    job = one(built("schedules"), "CronJob", "hasten-reconciler")["spec"]["jobTemplate"]
    spec: dict[str, Any] = job["spec"]["template"]["spec"]
    return spec


@pytest.mark.parametrize("version", VERSIONS)
def test_the_manifests_are_valid(version: str) -> None:
    resources = built("schedules")
    assert {each["kind"] for each in resources} == {"ConfigMap", "CronJob", "Role", "RoleBinding", "ServiceAccount"}
    for resource in resources:
        kubernetes_validate.validate(resource, version, strict=True)
        assert resource["metadata"]["namespace"] == "hasten"


def test_the_reconciler_is_restricted_and_bounded(pod: dict[str, Any]) -> None:
    assert_restricted(pod)
    assert pod["automountServiceAccountToken"] is False
    (container,) = pod["containers"]
    assert container["image"].startswith("ghcr.io/hasten/hasten-python-light:")
    assert container["resources"]["limits"]["memory"]
    schedule = one(built("schedules"), "CronJob", "hasten-reconciler")["spec"]
    assert schedule["concurrencyPolicy"] == "Forbid"
    assert schedule["jobTemplate"]["spec"]["activeDeadlineSeconds"] < 600
    # The network policy of `base` covers it: the label reaches the pod.
    labels = schedule["jobTemplate"]["spec"]["template"]["metadata"]["labels"]
    assert labels["app.kubernetes.io/part-of"] == "hasten"


def test_the_account_may_reconcile_and_no_more(pod: dict[str, Any]) -> None:
    resources = built("schedules")
    rules = one(resources, "Role", "hasten-reconciler")["rules"]
    allowed = {(group, name, verb) for rule in rules for group in rule["apiGroups"] for name in rule["resources"]
               for verb in rule["verbs"]}  # fmt: skip
    assert {group for group, _, _ in allowed} == {"pipelines.kubeflow.org"}
    assert {name for _, name, verb in allowed if verb == "delete"} == {"jobs"}
    assert not {verb for _, _, verb in allowed} - {"create", "delete", "get", "list"}
    assert "runs" not in {name for _, name, _ in allowed}
    assert pod["serviceAccountName"] == one(resources, "ServiceAccount", "hasten-reconciler")["metadata"]["name"]
    (token,) = [volume for volume in pod["volumes"] if volume["name"] == "token"]
    assert token["projected"]["sources"][0]["serviceAccountToken"]["audience"] == "pipelines.kubeflow.org"


def test_the_command_in_the_pod_makes_the_server_equal_to_the_file(
    pod: dict[str, Any], kfp_server: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: Any
) -> None:
    """The container's own arguments, on the files of its ConfigMap, against KFP's API models."""
    config = one(built("schedules"), "ConfigMap", "hasten-schedules")["data"]
    for name, text in config.items():
        (tmp_path / name).write_text(text)
    (tmp_path / "token").write_text("t0ken")
    kfp_server.token, kfp_server.multi_user, kfp_server.namespace = "t0ken", True, "hasten"
    (container,) = pod["containers"]
    places = {"/schedules/": f"{tmp_path}/", "/var/run/secrets/kubeflow/pipelines/": f"{tmp_path}/"}
    arguments = []
    for argument in container["args"]:
        for inside, here in places.items():
            argument = argument.replace(inside, here)
        arguments.append(argument)
    monkeypatch.setattr("sys.argv", [*arguments, "--json"])
    monkeypatch.setenv("KF_PIPELINES_ENDPOINT", kfp_server.url)
    assert errors.run(app) == 0
    out = capsys.readouterr()
    (done,) = json.loads(out.out)
    assert done == {"name": "trees-retrain", "action": "created", "cron": "0 0 3 * * 1"}, out.err
    (run,) = kfp_server.recurring.values()
    assert (run.display_name, run.service_account) == ("trees-retrain", "hasten-runner")
    assert [pipeline.display_name for pipeline in kfp_server.pipelines.values()] == ["hasten-retrain"]


def test_every_job_that_is_declared_is_in_the_config_map() -> None:
    folder = MANIFESTS / "schedules"
    named = {each["job"] for each in yaml.safe_load((folder / "schedules.yaml").read_text())["schedules"]}
    kustomization = yaml.safe_load((folder / "kustomization.yaml").read_text())
    assert named | {"schedules.yaml"} == set(kustomization["configMapGenerator"][0]["files"])
    done = subprocess.run(["kubectl", "kustomize", folder], capture_output=True, text=True)
    assert done.stderr == ""
