"""`hasten reconcile` and scheduled retraining against an API server that speaks KFP's own models."""

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from components.core.contracts.job import Job
from pipelines.cli import errors
from pipelines.cli.app import app
from pipelines.cli.main import COMMANDS

assert COMMANDS
JOB = {
    "name": "cells",
    "model": {"factory": "json:loads", "weights": "s3://models/cells.pt"},
    "data": {
        split: {"annotations": f"s3://data/{split}.json", "images": f"s3://data/{split}"} for split in ("train", "test")
    },
    "target": {"runtimes": ["onnxruntime"], "input_shape": [1, 3, 320, 320]},
    "goal": {"min_speedup": "2x", "max_accuracy_drop": 0.01},
    "publish": {"to": "s3://models/published"},
    "retrain": {},
}


@pytest.fixture
def place(tmp_path: Path) -> Path:
    for name, changes in (("cells", {}), ("trees", {"name": "trees"}), ("plain", {"name": "plain", "retrain": None})):
        (tmp_path / f"{name}.yaml").write_text(yaml.safe_dump(JOB | {"model": dict(JOB["model"])} | changes))
    return tmp_path


@pytest.fixture
def hasten(capsys, monkeypatch, kfp_server):
    """Runs a command in this process: exit code, what it printed as JSON (or nothing), stderr."""

    def call(*arguments: Any) -> tuple[int, Any, str]:
        monkeypatch.setattr("sys.argv", ["hasten", *map(str, arguments), "--host", kfp_server.url, "--json"])
        code = errors.run(app)
        out = capsys.readouterr()
        return code, json.loads(out.out) if out.out else None, out.err

    return call


def declare(place: Path, *schedules: dict[str, Any]) -> Path:
    (place / "schedules.yaml").write_text(yaml.safe_dump({"schedules": list(schedules)}))
    return place / "schedules.yaml"


NIGHTLY = {"job": "cells.yaml", "cron": "0 0 2 * * *"}
WEEKLY = {"job": "cells.yaml", "cron": "0 0 3 * * 1", "pipeline": "retrain", "gpus": 1, "service_account": "runner"}
TREES = {"job": "trees.yaml", "cron": "0 0 4 * * *"}


def actions(answer: Any) -> dict[str, str]:
    return {each["name"]: each["action"] for each in answer}


def test_the_server_becomes_equal_to_the_file_and_stays_so(kfp_server, place, hasten) -> None:
    file = declare(place, NIGHTLY, WEEKLY, TREES)
    code, answer, err = hasten("reconcile", file)
    assert code == 0, err
    assert actions(answer) == {"cells": "created", "cells-retrain": "created", "trees": "created"}
    runs = {run.display_name: run for run in kfp_server.recurring.values()}
    assert set(runs) == {"cells", "cells-retrain", "trees"}
    weekly = runs["cells-retrain"]
    assert (weekly.service_account, weekly.max_concurrency, weekly.no_catchup) == ("runner", "1", True)
    assert weekly.trigger.cron_schedule.cron == "0 0 3 * * 1"
    assert weekly.runtime_config.parameters["gpus"] == "1"
    assert Job.model_validate_json(weekly.runtime_config.parameters["job"]) == Job.model_validate(JOB)
    pipelines = {pipeline.pipeline_id: pipeline.display_name for pipeline in kfp_server.pipelines.values()}
    assert pipelines[weekly.pipeline_version_reference.pipeline_id] == "hasten-retrain"
    assert pipelines[runs["cells"].pipeline_version_reference.pipeline_id] == "hasten-ladder"

    # Done again: nothing is written.
    before = set(kfp_server.recurring)
    assert actions(hasten("reconcile", file)[1]) == dict.fromkeys(runs, "unchanged")
    assert set(kfp_server.recurring) == before
    assert len(kfp_server.pipelines) == 2


def test_what_was_changed_is_put_right_and_what_is_gone_is_deleted(kfp_server, place, hasten) -> None:
    hasten("reconcile", declare(place, NIGHTLY, WEEKLY, TREES))
    runs = {run.display_name: run for run in kfp_server.recurring.values()}
    runs["trees"].mode = "DISABLE"  # paused in the UI
    (place / "cells.yaml").write_text(yaml.safe_dump(JOB | {"goal": {"min_speedup": "3x", "max_accuracy_drop": 0.01}}))
    _, answer, _ = hasten("reconcile", declare(place, NIGHTLY | {"cron": "0  30 2 * * *"}, TREES))
    assert actions(answer) == {"cells": "replaced", "trees": "replaced", "cells-retrain": "deleted"}
    left = {run.display_name: run for run in kfp_server.recurring.values()}
    assert set(left) == {"cells", "trees"}
    assert left["trees"].mode == "ENABLE"
    assert left["cells"].trigger.cron_schedule.cron == "0 30 2 * * *"
    assert '"min_speedup":3.0' in left["cells"].runtime_config.parameters["job"].replace(" ", "") or (
        Job.model_validate_json(left["cells"].runtime_config.parameters["job"]).goal.min_speedup == 3
    )
    assert actions(hasten("reconcile", declare(place))[1]) == {"cells": "deleted", "trees": "deleted"}
    assert not kfp_server.recurring


def test_schedules_made_by_hand_stay_unless_their_name_is_declared(kfp_server, place, hasten) -> None:
    hasten("schedule", place / "trees.yaml", "--cron", "0 0 5 * * *")
    hasten("schedule", place / "cells.yaml", "--cron", "0 0 5 * * *")
    _, answer, _ = hasten("reconcile", declare(place, NIGHTLY))
    assert actions(answer) == {"cells": "replaced"}
    crons = {run.display_name: run.trigger.cron_schedule.cron for run in kfp_server.recurring.values()}
    assert crons == {"trees": "0 0 5 * * *", "cells": "0 0 2 * * *"}


def test_a_dry_run_says_what_would_be_done_and_does_nothing(kfp_server, place, hasten) -> None:
    file = declare(place, NIGHTLY, TREES)
    assert actions(hasten("reconcile", file, "--dry-run")[1]) == {"cells": "created", "trees": "created"}
    assert not kfp_server.recurring
    assert not kfp_server.pipelines
    hasten("reconcile", file)
    before = set(kfp_server.recurring)
    file = declare(place, NIGHTLY | {"gpus": 2})
    assert actions(hasten("reconcile", file, "--dry-run")[1]) == {"cells": "replaced", "trees": "deleted"}
    file = declare(place, NIGHTLY, TREES)
    assert actions(hasten("reconcile", file, "--dry-run")[1]) == {"cells": "unchanged", "trees": "unchanged"}
    assert set(kfp_server.recurring) == before


@pytest.mark.parametrize(
    ("schedules", "words"),
    [
        ([{"job": "cells.yaml", "cron": "0 2 * * *"}], "schedules[0]: --cron: given '0 2 * * *'"),
        ([{"job": "nowhere.yaml", "cron": "0 0 2 * * *"}], "schedules[0]: "),
        ([{"job": "plain.yaml", "cron": "0 0 2 * * *", "pipeline": "retrain"}], "retrain: the job has no such section"),
        ([NIGHTLY, NIGHTLY], "schedules: given twice: cells"),
        ([{"job": "cells.yaml", "corn": "0 0 2 * * *"}], "did you mean cron?"),
        ([{"job": "cells.yaml", "cron": "0 0 2 * * *", "pipeline": "fleet"}], "pipeline"),
    ],
)
def test_what_cannot_be_declared_is_refused_before_anything_is_sent(
    kfp_server, place, hasten, schedules, words
) -> None:
    code, _, err = hasten("reconcile", declare(place, *schedules))
    assert code == 2
    assert words in err, err
    assert not kfp_server.pipelines


def test_a_retraining_is_scheduled_beside_the_ladder(kfp_server, place, hasten) -> None:
    for flags in ((), ("--retrain",)):
        code, answer, err = hasten("schedule", place / "cells.yaml", "--cron", "0 0 2 * * *", *flags)
        assert code == 0, err
        assert answer["name"] == ("cells-retrain" if flags else "cells")
    names = [each["name"] for each in hasten("schedules")[1]]
    assert names == ["cells", "cells-retrain"]
    code, _, err = hasten("schedule", place / "plain.yaml", "--cron", "0 0 2 * * *", "--retrain")
    assert (code, err.count("\n")) == (2, 1)
    assert "retrain: the job has no such section" in err
