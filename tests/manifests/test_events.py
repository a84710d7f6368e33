"""New data in S3 starts a run: the manifests for Argo Events, and the command that their pod runs."""

import functools
import json
from pathlib import Path

import kubernetes_validate
import pytest
import yaml
from hera.events import models as events
from hera.workflows import models as argo
from pydantic import ValidationError
from test_kustomize import VERSIONS, assert_restricted, built, one, pytestmark

from components.core.contracts.job import Job
from components.core.images import LIGHT_IMAGE
from components.core.job_file import parse_job
from pipelines.argo.workflow import Cluster, workflow_template
from pipelines.cli import errors
from pipelines.cli.app import app
from pipelines.cli.main import COMMANDS
from pipelines.cluster.pipeline import check_reachable

assert COMMANDS
assert pytestmark  # skipped where kubectl is missing
OVERLAYS = ("aws-kubeflow", "minio-argo")
SOURCES = ("sqs", "minio", "webhook")
MODELS = {"EventSource": events.EventSource, "Sensor": events.Sensor}


@pytest.mark.parametrize("folder", [*(f"overlays/{name}" for name in OVERLAYS), *SOURCES, "kubeflow", "argo"])
def test_every_resource_is_one_of_its_kind(folder):
    for resource in built(f"events/{folder}"):
        assert resource["metadata"]["namespace"] == "hasten"
        if resource["apiVersion"].startswith("argoproj.io/"):
            if resource["kind"] in MODELS:
                check(resource)
            continue
        for version in VERSIONS:
            kubernetes_validate.validate(resource, version, strict=True)


def check(resource):
    """Every field is one that the models of Argo Events have, with a value of its type."""
    given = {key: json.loads(json.dumps(resource[key])) for key in ("metadata", "spec")}
    for hook in given["spec"].pop("webhook", {}).values():  # the models do not inline what the API inlines
        assert written(events.WebhookContext.model_validate(hook)) == hook
    for trigger in given["spec"].get("triggers", []):  # what is created is checked by itself, below
        trigger["template"]["k8s"]["source"]["resource"] = {}
    for place, value in _int64(MODELS[resource["kind"]], given):
        place[1][place[0]] = str(value)
    assert written(MODELS[resource["kind"]].model_validate(given)) == given


def _int64(model, given):
    """Whole numbers where the models, made from protobuf's JSON, have text."""
    try:
        model.model_validate(given)
    except ValidationError as error:
        for problem in error.errors():
            if problem["type"] == "string_type" and isinstance(problem["input"], int):
                *parents, last = problem["loc"]
                yield (last, functools.reduce(lambda inner, key: inner[key], parents, given)), problem["input"]


def written(read):
    return json.loads(read.model_dump_json(exclude_none=True, by_alias=True))


def test_a_field_that_argo_events_does_not_know_is_found():
    resource = one(built("events/sqs"), "EventSource", "hasten-new-data")
    resource["spec"]["sqs"]["new-data"]["queueName"] = "x"
    with pytest.raises(AssertionError):
        check(resource)


@pytest.mark.parametrize("source", SOURCES)
def test_sensors_listen_to_what_the_sources_say(source):
    made = one(built(f"events/{source}"), "EventSource", "hasten-new-data")
    (kind,) = set(made["spec"]) - {"replicas", "template", "service"}
    assert kind == source
    for trigger in ("kubeflow", "argo"):
        sensor = one(built(f"events/{trigger}"), "Sensor", "hasten-new-data")
        (dependency,) = sensor["spec"]["dependencies"]
        assert dependency["eventSourceName"] == made["metadata"]["name"]
        assert dependency["eventName"] in made["spec"][kind]


def started_by(trigger):
    sensor = one(built(f"events/{trigger}"), "Sensor", "hasten-new-data")
    (only,) = sensor["spec"]["triggers"]
    assert only["template"]["k8s"]["operation"] == "create"
    return only["template"]["k8s"]["source"]["resource"]


def test_pods_pass_pod_security_restricted():
    pods = [started_by("kubeflow")["spec"]["template"]["spec"]]
    for folder in (*SOURCES, "kubeflow", "argo"):
        for resource in built(f"events/{folder}"):
            if resource["kind"] in MODELS:
                template = resource["spec"]["template"]
                pods.append({"securityContext": template["securityContext"], "containers": [template["container"]]})
    assert len(pods) == 6
    for pod in pods:
        assert_restricted(pod)
    bus = one(built("events/base"), "EventBus", "default")["spec"]["jetstream"]
    for name in ("containerTemplate", "metricsContainerTemplate", "reloaderContainerTemplate"):
        context = bus[name]["securityContext"]
        assert (context["allowPrivilegeEscalation"], context["capabilities"]) == (False, {"drop": ["ALL"]})
    assert bus["securityContext"]["runAsNonRoot"] is True


def test_the_account_may_create_runs_and_no_more():
    assert one(built("events/kubeflow"), "Role", "hasten-events")["rules"] == [
        {"apiGroups": ["batch"], "resources": ["jobs"], "verbs": ["create"]}
    ]
    rules = one(built("events/argo"), "Role", "hasten-events")["rules"]
    assert {verb for rule in rules for verb in rule["verbs"]} == {"create", "get"}
    assert not any("*" in value for rule in rules for value in rule["resources"] + rule["apiGroups"])


def test_the_pod_that_submits_may_start_runs_in_kubeflow_and_nothing_of_kubernetes():
    resources = built("events/kubeflow")
    account = started_by("kubeflow")["spec"]["template"]["spec"]["serviceAccountName"]
    (subject,) = one(resources, "RoleBinding", account)["subjects"]
    assert (subject["kind"], subject["name"]) == (
        "ServiceAccount",
        one(resources, "ServiceAccount", account)["metadata"]["name"],
    )
    rules = one(resources, "Role", account)["rules"]
    assert {group for rule in rules for group in rule["apiGroups"]} == {"pipelines.kubeflow.org"}
    assert ("runs", "create") in {
        (name, verb) for rule in rules for name in rule["resources"] for verb in rule["verbs"]
    }


def test_the_pod_that_new_data_starts_submits_the_job(kfp_server, tmp_path, monkeypatch, capsys):
    job = started_by("kubeflow")
    for version in VERSIONS:
        kubernetes_validate.validate(
            job | {"metadata": {"name": "x", "labels": job["metadata"]["labels"]}}, version, strict=True
        )
    pod = job["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    assert container["image"] == LIGHT_IMAGE
    settings = one(built("events/base"), "ConfigMap", "hasten-job")
    assert {"name": "job", "configMap": {"name": settings["metadata"]["name"]}} in pod["volumes"]
    (tmp_path / "job.yaml").write_text(settings["data"]["job.yaml"])
    (tmp_path / "token").write_text("the-pods-token")
    kfp_server.token, kfp_server.multi_user, kfp_server.namespace = "the-pods-token", True, "hasten"
    mounted = {"/job/": tmp_path, "/var/run/secrets/kubeflow/pipelines/": tmp_path}
    paths = {mount["mountPath"] + "/" for mount in container["volumeMounts"]}
    assert set(mounted) <= paths
    arguments = container["args"]
    for inside, outside in mounted.items():
        arguments = [text.replace(inside, f"{outside}/") for text in arguments]
    (variable,) = container["env"]
    monkeypatch.setenv(variable["name"], kfp_server.url)
    monkeypatch.setattr("sys.argv", arguments)
    assert errors.run(app) == 0, capsys.readouterr().err
    (run,) = kfp_server.runs.values()
    assert Job.model_validate_json(run.runtime_config.parameters["job"]).name == "trees"
    assert run.service_account == "hasten-runner"


def test_the_workflow_that_new_data_starts_is_one_of_the_template():
    made = argo.Workflow.model_validate(started_by("argo"))
    template = workflow_template(Cluster())
    assert made.spec.workflow_template_ref.name == template["metadata"]["name"]
    declared = {each["name"]: each for each in template["spec"]["arguments"]["parameters"]}
    given = {each.name: each for each in made.spec.arguments.parameters}
    assert {name for name, each in declared.items() if "value" not in each} <= set(given) <= set(declared)
    reference = given["job"].value_from.config_map_key_ref
    assert reference.key in one(built("events/base"), "ConfigMap", reference.name)["data"]


def test_the_job_is_one_and_the_cluster_can_read_it():
    text = (Path(__file__).parent.parent.parent / "manifests" / "events" / "base" / "job.yaml").read_text()
    check_reachable(parse_job(text))
    assert one(built("events/base"), "ConfigMap", "hasten-job")["data"]["job.yaml"] == text
    assert yaml.safe_load(text)["name"] == "trees"


def test_the_stores_settings_are_those_that_the_workflows_read():
    settings = one(built("argo"), "ConfigMap", "hasten-argo")
    kubernetes_validate.validate(settings, VERSIONS[0], strict=True)
    asked = {
        variable["valueFrom"]["configMapKeyRef"]["key"]
        for template in workflow_template(Cluster())["spec"]["templates"]
        for variable in template.get("container", {}).get("env", [])
        if "configMapKeyRef" in variable["valueFrom"]
    }
    assert set(settings["data"]) == asked
