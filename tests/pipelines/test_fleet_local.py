"""`hasten fleet` on this machine: a model that works, one that breaks and one whose files are missing."""

import json
import shutil

import pytest
import yaml
from tiny_job import hasten, make_tiny_job

pytestmark = pytest.mark.slow


def test_a_model_that_fails_does_not_stop_the_others(tmp_path):
    fields = yaml.safe_load(make_tiny_job(tmp_path / "jobs" / "files").read_text())
    data, place = fields.pop("data"), "jobs/files"
    defaults = {name: fields[name] for name in ("target", "goal", "budget")} | {"publish": {"to": "file://published"}}
    defaults["data"] = {
        split: {name: f"{place}/{path}" for name, path in places.items()} for split, places in data.items()
    }
    jobs = {
        "broken": {"factory": "broken_models:detector", "weights": "files/weights.pt"},
        "missing": fields["model"] | {"weights": "files/nowhere.pt"},
        "sound": fields["model"] | {"weights": "files/weights.pt"},
    }
    for name, model in jobs.items():
        (tmp_path / "jobs" / f"{name}.yaml").write_text(yaml.safe_dump({"name": name, "model": model}))
    (tmp_path / "jobs" / "broken_models.py").write_text("def detector():\n    return 1 / 0\n")
    (tmp_path / "fleet.yaml").write_text(
        yaml.safe_dump({"name": "tiny", "jobs": ["jobs/*.yaml"], "defaults": defaults})
    )

    planned = hasten(tmp_path / "cache", "fleet", tmp_path / "fleet.yaml", "--plan")
    assert planned.returncode == 0, planned.stderr
    assert "tiny: 3 models" in planned.stdout

    out = tmp_path / "out"
    done = hasten(tmp_path / "cache", "fleet", tmp_path / "fleet.yaml", "--out", out, "--json")
    assert done.returncode == 3, done.stderr
    rows = {row["name"]: row for row in json.loads(done.stdout)["rows"]}
    assert rows["broken"]["state"] == rows["missing"]["state"] == "failed"
    assert "division by zero" in rows["broken"]["reason"]
    assert "model.weights: " in rows["missing"]["reason"]
    assert rows["sound"]["state"] == "met", rows
    assert rows["sound"]["speedup"] > 0
    assert (out / "sound" / "report.html").exists()
    assert (tmp_path / "published" / "sound" / "production.json").exists()
    assert "1 of 3 models meet their goal, 0 do not, 2 failed." in (out / "fleet.md").read_text()
    assert json.loads((out / "fleet.json").read_text()) == json.loads(done.stdout)

    # Taken up again when the missing file is there, the fleet does only what is left.
    shutil.copy(tmp_path / "jobs" / "files" / "weights.pt", tmp_path / "jobs" / "files" / "nowhere.pt")
    again = hasten(tmp_path / "cache", "fleet", tmp_path / "fleet.yaml", "--out", out, "--json", "--resume")
    later = {row["name"]: row for row in json.loads(again.stdout)["rows"]}
    assert later["missing"]["state"] == "met", later
    assert later["sound"]["p50_ms"] == rows["sound"]["p50_ms"]
