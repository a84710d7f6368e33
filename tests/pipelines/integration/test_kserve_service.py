"""`hasten kserve`, from real S3, against KServe's own models (recorded from its package) and Kubernetes' schemas."""

import json
import re
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml

from components.core.contracts.job import Runtime
from components.core.errors import UserError
from components.core.files import sha256_file
from components.core.s3 import S3, parse_s3
from components.publish.published import Published, read_published
from components.publish.run import run_publish
from components.publish.triton import FALLBACK, REPOSITORY
from fixtures.published import make_board, make_job, make_report, save_model
from fixtures.seaweedfs import S3Server
from pipelines.cli import errors
from pipelines.cli.app import app
from pipelines.cli.main import COMMANDS
from pipelines.integration.kserve import Serving, inference_service

assert COMMANDS
KSERVE = json.loads((Path(__file__).parent.parent.parent / "fixtures" / "kserve_models.json").read_text())["models"]


def published_at(s3: S3Server, folder: Path, runtime: Runtime = Runtime.ONNXRUNTIME, name: str = "trees") -> Published:
    """A version in a bucket of its own; an engine has the ONNX file that it was built from beside it."""
    folder.mkdir()
    file = "m.engine" if runtime in (Runtime.TENSORRT, Runtime.TENSORRT_RTX) else "m.onnx"
    if file == "m.engine":
        (folder / file).write_bytes(b"an engine")
        save_model(folder / "model.onnx")
    board = make_board(folder, runtime=runtime, file=file)
    if file == "m.engine":
        card = {
            "module": "tensorrt",
            "version": "11.0.1",
            "compute_capabilities": ["8.9"],
            "onnx_sha256": sha256_file(folder / "model.onnx"),
        }
        winner = board.row("int8").model_copy(update={"details": {"engine": card}})
        rows = [winner if row.id == "int8" else row for row in board.candidates]
        board = board.model_copy(update={"candidates": rows, "environment": {"gpu": "NVIDIA L4"}})
    report = make_report(folder / "report")
    (report / "leaderboard.json").write_text(board.model_dump_json())
    job = make_job(f"s3://{s3.new_bucket()}/models", name=name)
    return read_published(run_publish(job, board, report))


def check(value: Any, kind: str, where: str = "") -> None:
    """Refuses a field that KServe's model does not have, one that is missing, and a value of another type."""
    if inner := re.fullmatch(r"list\[(.+)\]", kind):
        assert isinstance(value, list), where
        for number, each in enumerate(value):
            check(each, inner[1], f"{where}[{number}]")
    elif kind in KSERVE:
        assert isinstance(value, dict), where
        fields, required = KSERVE[kind]["fields"], KSERVE[kind]["required"]
        assert set(value) <= set(fields), f"{where}: {kind} has no {set(value) - set(fields)}"
        assert set(required) <= set(value), f"{where}: {kind} needs {required}"
        for name, each in value.items():
            check(each, fields[name], f"{where}.{name}")
    elif kind in ("str", "int", "bool"):
        assert type(value).__name__ == kind, f"{where} is no {kind}"


def pod_of(service: dict[str, Any]) -> dict[str, Any]:
    """The predictor's Kubernetes fields as the pod that KServe makes of them."""
    predictor = dict(service["spec"]["predictor"])
    model = predictor.pop("model")
    container = {name: model[name] for name in ("resources", "securityContext")}
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": service["metadata"],
        "spec": predictor | {"containers": [{"name": "kserve-container", "image": "triton", **container}]},
    }


def test_the_service_is_one_of_kserves(s3: S3Server, tmp_path: Path) -> None:
    published = published_at(s3, tmp_path / "model", Runtime.TENSORRT)
    serving = Serving(
        namespace="team-a",
        account="models-reader",
        gpus=1,
        gpu_resource="nvidia.com/mig-1g.10gb",
        node_selector={"nvidia.com/gpu.product": "NVIDIA-L4"},
    )
    service = inference_service(published, serving)
    check(service, "V1beta1InferenceService")
    for version in ("1.30", "1.34"):
        kubernetes_validate.validate(pod_of(service), version, strict=True)
    predictor = service["spec"]["predictor"]
    assert predictor["model"]["modelFormat"] == {"name": "triton", "version": "2"}
    assert predictor["model"]["storageUri"] == f"{published.uri}/{REPOSITORY}"
    assert predictor["model"]["resources"]["limits"]["nvidia.com/mig-1g.10gb"] == "1"
    assert predictor["tolerations"][0]["key"] == "nvidia.com/gpu"
    annotations = service["metadata"]["annotations"]
    assert annotations["hasten/tensorrt"] == "11.0.1"
    assert annotations["hasten/gpu"] == "NVIDIA L4"
    assert annotations["hasten/compute-capabilities"] == "8.9"
    assert service["metadata"]["labels"]["app.kubernetes.io/version"] == published.manifest.version
    broken = json.loads(json.dumps(service))
    broken["spec"]["predictor"]["model"]["storageURI"] = "s3://x"
    with pytest.raises(AssertionError, match="has no"):
        check(broken, "V1beta1InferenceService")


def test_what_is_served_is_a_model_repository(s3: S3Server, tmp_path: Path) -> None:
    published = published_at(s3, tmp_path / "model", Runtime.TENSORRT)
    for fallback, place, file in [(False, REPOSITORY, "model.plan"), (True, FALLBACK, "model.onnx")]:
        service = inference_service(published, Serving(fallback=fallback))
        uri = service["spec"]["predictor"]["model"]["storageUri"]
        assert uri == f"{published.uri}/{place}"
        # KServe copies what is below the URI to /mnt/models, which Triton takes for its repository.
        assert set(S3().below(parse_s3(uri))) == {"trees/config.pbtxt", f"trees/1/{file}"}


def test_an_engine_that_triton_cannot_load_is_served_from_its_onnx_file(s3: S3Server, tmp_path: Path) -> None:
    published = published_at(s3, tmp_path / "model", Runtime.TENSORRT_RTX)
    with pytest.raises(UserError, match=r"no backend for tensorrt-rtx; add --fallback to serve the ONNX file"):
        inference_service(published, Serving())
    service = inference_service(published, Serving(fallback=True))
    assert service["spec"]["predictor"]["model"]["storageUri"].endswith(f"/{FALLBACK}")
    plain = published_at(s3, tmp_path / "onnx")
    with pytest.raises(UserError, match=r"--fallback: .* has no ONNX file beside an engine"):
        inference_service(plain, Serving(fallback=True))


@pytest.mark.parametrize(
    ("model", "name"),
    [
        ("trees", "trees"),
        ("trees_v1.2", "trees-v1-2"),
        ("2fast", "m-2fast"),
        ("a" * 63, "a" * 52),
        ("9" * 63, f"m-{'9' * 50}"),
    ],
)
def test_a_models_name_becomes_a_dns_label(s3: S3Server, tmp_path: Path, model: str, name: str) -> None:
    service = inference_service(published_at(s3, tmp_path / "model", name=model), Serving())
    assert service["metadata"]["name"] == name
    kubernetes_validate.validate(pod_of(service), "1.34", strict=True)


def test_the_command_prints_what_kubectl_applies(
    s3: S3Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    published = published_at(s3, tmp_path / "model")
    model = published.uri.partition("/versions/")[0]
    texts = []
    for uri in (model, published.uri):
        monkeypatch.setattr("sys.argv", ["hasten", "kserve", uri, "--namespace", "team-a", "--cpu", "500m"])
        assert errors.run(app) == 0
        texts.append(capsys.readouterr().out)
    assert texts[0] == texts[1]
    service = yaml.safe_load(texts[0])
    check(service, "V1beta1InferenceService")
    assert service == inference_service(published, Serving(namespace="team-a", cpu="500m"))
    for arguments, words in [
        ((model, "--name", "No_Name"), "--name: given 'No_Name', accepted: at most 52 lower case letters"),
        ((f"{model}-not", ), "nothing is in production there"),
    ]:  # fmt: skip
        monkeypatch.setattr("sys.argv", ["hasten", "kserve", *arguments])
        assert errors.run(app) == 2
        out = capsys.readouterr()
        assert words in out.err
        assert (out.out, out.err.count("\n")) == ("", 1)


def test_a_folder_of_this_machine_is_refused(tmp_path: Path) -> None:
    board = make_board(tmp_path / "int8")
    report = make_report(tmp_path / "report")
    (report / "leaderboard.json").write_text(board.model_dump_json())
    published = read_published(run_publish(make_job((tmp_path / "models").as_uri()), board, report))
    with pytest.raises(UserError, match="the cluster cannot read it; publish to s3://bucket/prefix"):
        inference_service(published, Serving())
