"""Builds the images and works in them as on a cluster: no root, a root file system that cannot be written."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from image_tools import ROOT, Pod, build, configuration, make_base, missing

pytestmark = pytest.mark.nightly
TESTS = ROOT / "tests"


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What is mounted into the pods: a tiny job, and the modules that its factory needs."""
    folder = tmp_path_factory.mktemp("data")
    code = "import sys; from pathlib import Path; from tiny_job import make_tiny_job; make_tiny_job(Path(sys.argv[1]))"
    path = os.pathsep.join(map(str, (ROOT, TESTS, TESTS / "pipelines")))
    subprocess.run(
        [sys.executable, "-c", code, folder / "job"], env={**os.environ, "PYTHONPATH": path}, check=True, timeout=300
    )
    for package in ("__init__.py", "detectors.py"):
        source = TESTS / "fixtures" / package
        if source.exists():
            (folder / "modules" / "fixtures").mkdir(parents=True, exist_ok=True)
            (folder / "modules" / "fixtures" / package).write_bytes(source.read_bytes())
    subprocess.run(["chmod", "-R", "a+rX", folder, *folder.parents[:2]], check=True)
    return folder


@pytest.fixture(scope="module", params=["light", "torch"])
def built(request: pytest.FixtureRequest) -> tuple[str, str]:
    """Name of the image, and its name in the builder's store."""
    if reason := missing(request.param):
        pytest.skip(reason)
    return request.param, build(request.param, make_base())


@pytest.fixture
def pod(built: tuple[str, str], data: Path) -> Iterator[Pod]:
    with Pod(built[1], data) as started:
        yield started


def test_it_says_who_it_is_and_how_large(built, pod, capsys):
    name, image = built
    described = configuration(image)
    assert described["User"] == "10001:10001"
    assert described["Labels"]["org.opencontainers.image.title"] == f"hasten {name}"
    assert described["Labels"]["org.opencontainers.image.licenses"] == "Apache-2.0"
    size = pod.size()
    with capsys.disabled():
        print(f"\n{image}: {size / 1e6:,.0f} MB of files, its base included")
    assert size < {"light": 0.8e9, "torch": 14e9}[name]


def test_it_runs_without_root_on_a_root_file_system_that_cannot_be_written(pod):
    assert pod("id", "-u").stdout.strip() == "10001"
    written = pod("sh", "-c", "touch /tmp/here && touch /opt/hasten/there")
    assert written.returncode != 0
    assert "Read-only file system" in written.stderr


def test_the_doctor_says_what_works_in_it(built, pod):
    done = pod("hasten", "doctor", "--json")
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    runs = {each["runtime"]: each["run"]["ok"] for each in found["runtimes"]}
    assert runs["onnxruntime"] is runs["openvino"] is runs["torch"] is (built[0] == "torch"), found
    works = {each["step"]: each["works"]["ok"] for each in found["steps"]}
    assert all(works[step] for step in ("fetch", "report", "publish", "the ladder")), found


def test_a_component_works_in_it(built, pod):
    if built[0] == "light":
        done = pod("hasten", "fetch", "/mnt/job/job.yaml", "--out", "/tmp/bundle")
        assert done.returncode == 0, done.stderr
        return
    # All of the ladder: export, surgery, int8, benchmark, report.
    command = "cp -r /mnt/job /tmp/job && hasten run /tmp/job/job.yaml --out /tmp/run --json"
    done = pod("sh", "-c", command, PYTHONPATH="/mnt/modules", OMP_NUM_THREADS="1", time_limit=1200)
    assert done.returncode == 0, done.stderr[-3000:]
    assert json.loads(done.stdout)["winner"] == "int8-onnxruntime"
