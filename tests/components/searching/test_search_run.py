"""A whole search on a tiny detector: probed for real, killed twice, and what its card and bundle say."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from components.core.contracts.job import Search
from components.core.contracts.training import TRAINING_CARD, TrainingCard
from components.core.contracts.variant import Status
from components.core.errors import UserError
from components.core.models import load_torch_model
from components.fetch.card import FetchCard
from components.searching.run import run_search
from fixtures.search_jobs import broken, make_bundle, sized

HERE = Path(__file__).parent
ROOT = HERE.parents[2]


@pytest.fixture(autouse=True)
def places(tmp_path, monkeypatch):
    monkeypatch.setenv("HASTEN_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(ROOT), str(ROOT / "tests")]))
    monkeypatch.setenv("OMP_NUM_THREADS", "1")


def live(folder: Path, where: str) -> "subprocess.CompletedProcess[str]":
    command = [sys.executable, str(HERE / "search_lives.py"), str(folder), where]
    return subprocess.run(command, env=dict(os.environ), capture_output=True, text=True, timeout=300)


@pytest.mark.slow
def test_killed_twice_a_search_does_nothing_again_and_ends(tmp_path):
    folder = tmp_path / "job"
    job, bundle = make_bundle(folder)
    (folder / "job.json").write_text(job.model_dump_json())
    first = live(folder, "round 1 of 2: wide-4")
    assert first.returncode == -9, first.stderr
    second = live(folder, "round 2 of 2: wide-0")
    assert second.returncode == -9, second.stderr
    assert "making wide-0, broken, wide-4 fit for the target" in first.stdout
    assert "fit for the target" not in second.stdout
    assert "round 1 of 2: wide-0" not in second.stdout
    last = live(folder, "")
    assert last.returncode == 0, last.stderr
    said = last.stdout.splitlines()
    assert not any("fit for the target" in line or "timing" in line for line in said)
    assert not any(line.startswith("round 1 of 2") for line in said)
    card = TrainingCard.model_validate(json.loads(said[-1]))
    assert (card.status, card.techniques) == (Status.OK, ["family", "wide-0"])
    search = card.search
    assert search is not None
    outcomes = {entry.id: entry.outcome for entry in search.entries}
    assert outcomes == {"wide-0": "winner", "broken": "failed", "wide-4": "trained"}
    by_id = {entry.id: entry for entry in search.entries}
    assert by_id["broken"].reason == "failed in the probe: RuntimeError: this one is not for sale"
    probes = [by_id[name].probe for name in ("wide-0", "wide-4")]
    assert all(one.speedup and one.latency_ms and one.size_bytes for one in probes)
    assert probes[0].latency_ms.p50 < probes[1].latency_ms.p50  # type: ignore[union-attr]
    assert list(probes[0].forms) == ["surgery-onnxruntime"]
    assert search.probe_core_seconds > 0
    assert search.trained_core_seconds > 0
    assert search.saved_by_probe_core_hours is not None
    assert (card.steps, card.planned_steps) == (12, 12)
    assert not list((tmp_path / "cache" / "training").iterdir())

    # The bundle is one that compress takes.
    out = folder / "out"
    assert TrainingCard.read(out) == card
    fetched = FetchCard.read(out)
    assert fetched.model[0].sha256 == card.weights_sha256
    assert fetched.train == FetchCard.read(bundle).train
    assert sorted(path.name for path in out.iterdir()) == [
        "README.md", "data", "fetch_card.json", "model", TRAINING_CARD,
    ]  # fmt: skip
    model = sized(job, 0).job.model
    assert load_torch_model(model, out / "model").training is False
    page = (out / "README.md").read_text()
    assert "3: 2 trained, 0 dropped by the probe, 1 failed" in page
    assert "| broken | failed |" in page


def search(tmp_path: Path, job: Any, bundle: Path, entrants: Any, **settings: Any) -> TrainingCard:
    fields = {"probe_rounds": 3, "probe_round_time": "0.05 s", "probe_int8": False} | settings
    card, recipe = run_search("family", job, bundle, tmp_path / "out", Search.model_validate(fields), entrants)
    assert recipe == job
    assert [path.name for path in (tmp_path / "out").iterdir()] == [TRAINING_CARD]
    return card


def test_where_every_candidate_fails_the_row_says_why(tmp_path):
    job, bundle = make_bundle(tmp_path / "job")
    card = search(tmp_path, job, bundle, lambda given, _: [broken(given)])
    assert card.status is Status.FAILED
    assert card.reason == (
        "none of 1 candidates is left to train: broken: failed in the probe: RuntimeError: this one is not for sale"
    )
    assert card.search is not None
    assert [entry.outcome for entry in card.search.entries] == ["failed"]


def test_what_cannot_be_searched_from_is_skipped(tmp_path):
    job, bundle = make_bundle(tmp_path / "job")
    onnx = job.model_copy(update={"model": job.model.model_validate({"onnx": "m.onnx"})})
    card = search(tmp_path, onnx, bundle, lambda *_: [])
    assert card.status is Status.SKIPPED
    assert card.reason.startswith("a .onnx file holds a model for inference alone; give model.factory")

    def refuse(*_: Any) -> Any:
        raise UserError("backbone.candidates: nothing fits")

    card = search(tmp_path, job, bundle, refuse)
    assert (card.status, card.reason) == (Status.SKIPPED, "backbone.candidates: nothing fits")


def test_no_runtime_that_can_be_timed_is_a_reason(tmp_path):
    job, bundle = make_bundle(tmp_path / "job", target={"runtimes": ["tensorrt"], "input_shape": [1, 3, 96, 96]})
    card = search(tmp_path, job, bundle, lambda given, _: [sized(given, 0)])
    assert card.status is Status.FAILED
    assert "no runtime of target.runtimes can be timed here (tensorrt: no GPU)" in card.reason
