"""The parts of retraining that need no training: what is refused before any work, and the last word."""

from pathlib import Path

import pytest
import yaml

from components.core.contracts.champion import Outcome, Verdict
from pipelines.cli import errors
from pipelines.cli.app import app
from pipelines.cli.main import COMMANDS
from pipelines.component_names import name_anew
from pipelines.ladder.prepare import prepare
from pipelines.ladder.recipe import Prepared
from pipelines.retrain.outcome import concluded
from pipelines.retrain.prepare import prepare_retraining

assert COMMANDS
SPLIT = {"annotations": "a.json", "images": "images"}
JOB = {
    "name": "cells",
    "model": {"factory": "json:loads", "weights": "w.pt"},
    "data": {"train": SPLIT, "test": SPLIT},
    "target": {"runtimes": ["onnxruntime"], "input_shape": [1, 3, 320, 320]},
    "goal": {"min_speedup": "2x", "max_accuracy_drop": 0.01},
}


def refused(
    fields: dict[str, object], folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> str:
    (folder / "job.yaml").write_text(yaml.safe_dump(fields))
    monkeypatch.setattr("sys.argv", ["hasten", "retrain", str(folder / "job.yaml"), "--out", str(folder / "out")])
    assert errors.run(app) == 2
    assert not (folder / "out").exists()
    return capsys.readouterr().err


def test_a_job_that_cannot_be_retrained_is_refused_before_any_work(tmp_path, capsys, monkeypatch) -> None:
    lines = refused(JOB, tmp_path, capsys, monkeypatch).splitlines()
    assert lines == [
        "hasten: retrain: the job has no such section; add `retrain: {}` to take the usual limits",
        "hasten: publish: the job names no place, so that there is no champion to train again; give publish.to",
    ]
    fixed = JOB | {"retrain": {}, "publish": {"to": "file://models"}, "model": {"onnx": "m.onnx"}}
    assert "model: a .pt2 or .onnx file holds a model for inference alone" in refused(
        fixed, tmp_path, capsys, monkeypatch
    )
    typo = JOB | {"retrain": {"max_drfit": 0.1}}
    assert "retrain.max_drfit: unknown key, did you mean max_drift?" in refused(typo, tmp_path, capsys, monkeypatch)


def test_the_last_word() -> None:
    won = Outcome(verdict=Verdict.PROMOTE, reason="more accurate", champion="v1", stage="challenge")
    assert concluded(won, "file:///v2") == won.model_copy(update={"published_uri": "file:///v2"})
    kept = concluded(won, "")
    assert kept.verdict is Verdict.KEEP
    assert kept.reason.startswith("a rollback withdrew this very version")
    assert kept.reason.endswith("more accurate")


def test_components_are_named_by_the_dag(tmp_path: Path) -> None:
    """Two numberings of one pipeline become the same text, and every executor keeps its platform settings."""

    def pipeline(first: str, second: str) -> str:
        step = {"executorLabel": f"exec-{first}"}
        inner = {"dag": {"tasks": {"a": {"componentRef": {"name": f"comp-{second}"}}}}}
        spec = {
            "root": {
                "dag": {
                    "tasks": {
                        "a": {"componentRef": {"name": f"comp-{first}"}},
                        "b": {"componentRef": {"name": "comp-inner"}},
                    }
                }
            },
            "components": {
                f"comp-{first}": step,
                f"comp-{second}": {"executorLabel": f"exec-{second}"},
                "comp-inner": inner,
            },
            "deploymentSpec": {"executors": {f"exec-{first}": {"image": "one"}, f"exec-{second}": {"image": "two"}}},
        }
        config = {f"exec-{first}": {"timeout": 1}, f"exec-{second}": {"timeout": 2}}
        platform = {"platforms": {"kubernetes": {"deploymentSpec": {"executors": config}}}}
        return "# head\n" + yaml.safe_dump_all([spec, platform])

    texts = []
    for number, names in enumerate((("export", "export-2"), ("export-3", "export-2-2"))):
        path = tmp_path / f"{number}.yaml"
        path.write_text(pipeline(*names))
        name_anew(path)
        texts.append(path.read_text())
    assert texts[0] == texts[1]
    spec, platform = yaml.safe_load_all(texts[0])
    assert texts[0].startswith("# head\n")
    executors = platform["platforms"]["kubernetes"]["deploymentSpec"]["executors"]
    assert executors == {"exec-export": {"timeout": 1}, "exec-export-2": {"timeout": 2}}
    assert spec["deploymentSpec"]["executors"]["exec-export-2"] == {"image": "two"}


@pytest.mark.parametrize("component", [prepare, prepare_retraining])
def test_what_is_prepared_has_a_way_out_of_the_step(component) -> None:
    assert tuple(component.component_spec.outputs) == Prepared._fields
