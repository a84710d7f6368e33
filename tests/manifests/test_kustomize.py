"""The cluster's manifests: built by kustomize, valid for two versions of Kubernetes, and as strict as they say."""

import json
import shutil
import subprocess
from pathlib import Path

import kubernetes_validate
import pytest
import yaml

MANIFESTS = Path(__file__).parent.parent.parent / "manifests"
OVERLAYS = ("dev", "gpu", "restricted", "s3")
VERSIONS = ("1.30", "1.34")


def _kubectl() -> str | None:
    """Why kubectl cannot build these, or None."""
    if shutil.which("kubectl") is None:
        return "kubectl is not installed"
    done = subprocess.run(["kubectl", "version", "--client", "-o", "json"], capture_output=True, text=True)
    version = json.loads(done.stdout).get("kustomizeVersion", "") if done.returncode == 0 else ""
    return None if version >= "v4.1" else "this kubectl's kustomize is older than 4.1"


pytestmark = pytest.mark.skipif(_kubectl() is not None, reason=str(_kubectl()))


def built(folder):
    done = subprocess.run(["kubectl", "kustomize", MANIFESTS / folder], capture_output=True, text=True, check=True)
    return list(yaml.safe_load_all(done.stdout))


def one(resources, kind, name):
    (found,) = [each for each in resources if each["kind"] == kind and each["metadata"]["name"] == name]
    return found


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("folder", ["base", *(f"overlays/{name}" for name in OVERLAYS)])
def test_every_overlay_is_valid(folder, version):
    resources = built(folder)
    assert resources
    for resource in resources:
        kubernetes_validate.validate(resource, version, strict=True)


@pytest.mark.parametrize("name", OVERLAYS)
def test_namespaces_refuse_what_is_not_restricted_and_our_pods_are(name):
    resources = built(f"overlays/{name}")
    labels = one(resources, "Namespace", "hasten")["metadata"]["labels"]
    assert labels["pod-security.kubernetes.io/enforce"] == "restricted"
    for resource in resources:
        if resource["kind"] in ("StatefulSet", "Deployment", "CronJob"):
            assert_restricted(resource["spec"]["template"]["spec"])


def assert_restricted(pod):
    """Pod Security "restricted", read from its definition."""
    assert not any(pod.get(key) for key in ("hostNetwork", "hostPID", "hostIPC"))
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert pod["securityContext"]["seccompProfile"]["type"] in ("RuntimeDefault", "Localhost")
    allowed = {
        "configMap",
        "csi",
        "downwardAPI",
        "emptyDir",
        "ephemeral",
        "persistentVolumeClaim",
        "projected",
        "secret",
    }
    assert all(set(volume) - {"name"} <= allowed for volume in pod.get("volumes", []))
    for container in [*pod["containers"], *pod.get("initContainers", [])]:
        context = container["securityContext"]
        assert context["allowPrivilegeEscalation"] is False
        assert context["capabilities"]["drop"] == ["ALL"]
        assert not context.get("privileged")
        assert context["readOnlyRootFilesystem"] is True


def test_the_account_may_do_no_more_than_a_step_needs():
    resources = built("base")
    rules = one(resources, "Role", "hasten-runner")["rules"]
    verbs = {verb for rule in rules for verb in rule["verbs"]}
    assert verbs == {"create", "get", "patch"}
    for rule in rules:
        if {"secrets", "configmaps"} & set(rule["resources"]):
            assert rule["resourceNames"], "secrets and settings are readable by name only"
    assert not [each for each in resources if each["kind"].startswith("Cluster")]


def test_no_secret_is_kept_here():
    for folder in ("base", *(f"overlays/{name}" for name in OVERLAYS)):
        assert not [each for each in built(folder) if each["kind"] == "Secret"]


def test_gpus_are_only_there_with_the_overlay():
    key = "requests.nvidia.com/gpu"
    assert one(built("base"), "ResourceQuota", "hasten")["spec"]["hard"][key] == "0"
    assert one(built("overlays/gpu"), "ResourceQuota", "hasten")["spec"]["hard"][key] == "4"


@pytest.mark.parametrize("name", ["dev", "s3"])
def test_the_store_is_the_overlays_own(name):
    config = one(built(f"overlays/{name}"), "ConfigMap", "kfp-launcher")["data"]
    given = yaml.safe_load((MANIFESTS / "overlays" / name / "launcher.yaml").read_text())["data"]
    assert config == given
    store = yaml.safe_load(config["providers"])["s3"]["default"]
    assert store["region"]
    credentials = store["credentials"]
    assert credentials["fromEnv"] or credentials["secretRef"]["secretName"] == "hasten-s3"


def test_steps_cannot_reach_the_metadata_service_of_the_cloud():
    policy = one(built("base"), "NetworkPolicy", "hasten-steps")["spec"]
    assert policy["ingress"] == []
    blocks = [to["ipBlock"] for rule in policy["egress"] for to in rule["to"] if "ipBlock" in to]
    assert blocks
    assert all("169.254.0.0/16" in block["except"] for block in blocks)
