"""Entrants are built in one process; one that takes it along is out alone."""

import os
from pathlib import Path

from components.core.contracts.job import Runtime, Search
from components.searching import probe
from fixtures.search_jobs import broken, make_bundle, sized

HERE = Path(__file__).parent


def test_an_entrant_that_crashes_the_builder_is_out_alone(tmp_path, monkeypatch):
    monkeypatch.setenv("HASTEN_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(HERE), os.environ.get("PYTHONPATH", "")]))
    monkeypatch.setattr(probe, "BUILDER", "dying_worker")
    job, bundle = make_bundle(tmp_path / "job")
    entrants = [sized(job, 0), sized(job, 1), broken(job), sized(job, 2)]
    built = probe._build(entrants, bundle, [Runtime.ONNXRUNTIME], Search(), tmp_path)
    assert [one.entrant.id for one in built] == ["wide-0", "wide-1", "broken", "wide-2"]
    assert [one.reason for one in built if one.entrant.id != "wide-1"] == [
        "made by nobody", "RuntimeError: this one is not for sale", "made by nobody",
    ]  # fmt: skip
    assert built[1].reason.startswith("its process crashed with SIGSEGV")
    assert not any(one.forms for one in built)
