"""hasten inside a pipeline of one's own: the example compiles, and runs with kfp.local."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from tiny_job import ROOT, environment, make_tiny_job

from components.core.job_file import read_job

EXAMPLE = ROOT / "pipelines" / "examples" / "own_pipeline.py"
RUN = """
import sys
from kfp import local
sys.path.insert(0, sys.argv[1])
from own_pipeline import own_pipeline
local.init(runner=local.SubprocessRunner(use_venv=False), pipeline_root=sys.argv[2])
job = open(sys.argv[3]).read()
print("told: " + own_pipeline(job=job, technique="int8").output)
"""


def test_the_example_compiles_as_its_page_says(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, EXAMPLE],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    pipeline = next(yaml.safe_load_all((tmp_path / "own_pipeline.yaml").read_text()))
    tasks = pipeline["root"]["dag"]["tasks"]
    assert {"prepare", "fetch", "export", "benchmark", "compress", "leaderboard", "announce"} == set(tasks)
    nested = pipeline["components"][tasks["compress"]["componentRef"]["name"]]
    assert "engine" in nested["dag"]["tasks"]
    # The engine build and the benchmark keep their place on the cluster inside another pipeline.
    executors = list(yaml.safe_load_all((tmp_path / "own_pipeline.yaml").read_text()))[1]
    placed = executors["platforms"]["kubernetes"]["deploymentSpec"]["executors"]
    assert placed["exec-engine"]["tolerations"]


def test_the_whole_ladder_is_one_task() -> None:
    from pipelines.examples.own_pipeline import whole_ladder

    spec = whole_ladder.pipeline_spec
    assert set(spec.root.dag.tasks) == {"ladder", "announce"}
    assert set(spec.root.dag.tasks["ladder"].inputs.parameters) >= {"job"}


@pytest.mark.slow
def test_the_example_runs(tmp_path: Path) -> None:
    job = read_job(make_tiny_job(tmp_path / "job"))
    (tmp_path / "job.json").write_text(job.model_dump_json(exclude_defaults=True))
    done = subprocess.run(
        [sys.executable, "-c", RUN, EXAMPLE.parent, tmp_path / "outputs", tmp_path / "job.json"],
        env=environment(tmp_path / "cache"),
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=900,
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    told = next(line for line in done.stdout.splitlines() if line.startswith("told: "))
    assert told.startswith("told: tiny: int8-onnxruntime ("), told
    cards = list((tmp_path / "outputs").rglob("measurement.json"))
    assert len(cards) == 2  # the model as it is, and the compressed one
    assert all(json.loads(card.read_text()) for card in cards)
