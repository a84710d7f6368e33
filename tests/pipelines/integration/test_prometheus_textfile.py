"""`hasten metrics`: read back by Prometheus' own parser."""

import json
import threading

import pytest
from prometheus_client.parser import text_string_to_metric_families

from components.core.contracts.leaderboard import Leaderboard
from components.core.errors import UserError
from pipelines.cli import errors
from pipelines.cli.app import app
from pipelines.cli.main import COMMANDS
from pipelines.integration.prometheus import MAX_CANDIDATES, as_text, write_textfile
from pipelines.integration.results import read_results
from pipelines.local.record import RunRecord, Stage, StepRecord

assert COMMANDS
BASELINE = {
    "id": "eager",
    "rung": "baseline",
    "techniques": [],
    "runtime": "torch",
    "status": "ok",
    "latency_ms": {"p50": 30, "p90": 31, "p99": 32},
    "accuracy": {"metric": "map50", "value": 0.5, "drop": 0},
    "size_bytes": 5000,
}
WINNER = BASELINE | {
    "id": "int8-openvino",
    "rung": "int8",
    "runtime": "openvino",
    "latency_ms": {"p50": 12.5, "p90": 13, "p99": 14},
    "speedup": {"ratio": 2.4, "ci_low": 2.3, "ci_high": 2.5},
    "throughput": 80.0,
    "accuracy": {"metric": "map50", "value": 0.49, "drop": 0.01},
    "other_accuracy": {"map": 0.3},
    "meets_goal": True,
}
FAILED = {
    "id": 'odd "name"\\\nof two lines',
    "rung": "fp16",
    "techniques": [],
    "runtime": "openvino",
    "status": "failed",
    "reason": "x",
}


def board(*more, **changes):
    fields = {
        "job": "trees",
        "goal": {"min_speedup": "2x", "max_accuracy_drop": 0.02},
        "baseline": "eager",
        "winner": "int8-openvino",
        "goal_met": True,
        "candidates": [BASELINE, *more, WINNER, FAILED],
    }
    return Leaderboard.model_validate(fields | changes)


def run_folder(folder, board_, record=None):
    folder.mkdir(exist_ok=True)
    (folder / "leaderboard.json").write_text(board_.model_dump_json())
    if record:
        record.write(folder)
    return folder


def samples(text):
    """(sample's name, labels without the job) -> value."""
    found = {}
    for family in text_string_to_metric_families(text):
        assert family.documentation, family.name
        assert family.type in ("gauge", "unknown"), family.name
        for sample in family.samples:
            assert sample.labels["job"] == "trees"
            key = (sample.name, *(value for name, value in sorted(sample.labels.items()) if name != "job"))
            assert key not in found, f"{key} twice"
            found[key] = sample.value
    return found


@pytest.fixture
def hasten(capsys, monkeypatch):
    def call(*arguments):
        monkeypatch.setattr("sys.argv", ["hasten", *map(str, arguments)])
        code = errors.run(app)
        out = capsys.readouterr()
        return code, out.out, out.err

    return call


def test_what_was_measured_is_read_back_in_base_units(tmp_path, hasten):
    record = RunRecord(stage=Stage.FINISHED, started="2026-01-02T03:04:05+00:00", wall_seconds=61.5, version="0.1.0")
    record.steps = [
        StepRecord(step="benchmark", rung="int8", state="done", seconds=20.0),
        StepRecord(step="benchmark", rung="", state="done", seconds=7.0),
    ]
    code, text, err = hasten("metrics", run_folder(tmp_path / "run", board(), record))
    assert (code, err) == (0, "")
    found = samples(text)
    row = ("int8-openvino", "int8", "openvino")
    assert found["hasten_candidate_latency_p50_seconds", *row] == pytest.approx(0.0125)
    assert found["hasten_candidate_latency_p99_seconds", "eager", "baseline", "torch"] == pytest.approx(0.032)
    assert found["hasten_candidate_speedup_ratio", *row] == pytest.approx(2.4)
    assert found["hasten_candidate_speedup_low_ratio", *row] == pytest.approx(2.3)
    assert found["hasten_candidate_size_bytes", *row] == 5000
    assert found["hasten_candidate_throughput_images_per_second", *row] == 80
    assert found["hasten_candidate_accuracy_drop_ratio", *row] == pytest.approx(0.01)
    assert found["hasten_candidate_accuracy_ratio", "int8-openvino", "map50", "int8", "openvino"] == pytest.approx(0.49)
    assert found["hasten_candidate_accuracy_ratio", "int8-openvino", "map", "int8", "openvino"] == pytest.approx(0.3)
    assert found["hasten_candidate_meets_goal", *row] == 1
    assert found["hasten_run_goal_met",] == 1
    assert {status: found["hasten_run_candidates", status] for status in ("ok", "failed", "skipped")} == {
        "ok": 2,
        "failed": 1,
        "skipped": 0,
    }
    assert found["hasten_run_duration_seconds",] == 61.5
    assert found["hasten_run_start_timestamp_seconds",] == 1767323045
    assert found["hasten_run_step_duration_seconds", "int8", "benchmark"] == 20
    assert found["hasten_run_step_duration_seconds", "", "benchmark"] == 7
    (info,) = [key for key in found if key[0] == "hasten_run_info"]
    assert {"int8-openvino", "eager", "map50", record.run_id, "0.1.0"} < set(info)


LEDGER = {
    "rungs": [
        {"rung": "", "wall_seconds": 30, "core_seconds": 50},
        {"rung": "int8", "wall_seconds": 64, "core_seconds": 120, "gpu_seconds": 5},
    ],
    "not_climbed": [
        {"rung": "fp16", "why": "the goal was met before", "wall_seconds": 41, "core_seconds": 80, "gpu_seconds": 0},
        {"rung": "amp", "why": "the goal was met before"},
    ],
}


def test_what_rungs_cost_and_what_was_saved(tmp_path):
    found = samples(as_text(read_results(run_folder(tmp_path / "run", board(ledger=LEDGER)))))
    assert found["hasten_run_cost_seconds", "core", "int8"] == 120
    assert found["hasten_run_cost_seconds", "gpu", "int8"] == 5
    assert found["hasten_run_cost_seconds", "wall", ""] == 30
    assert found["hasten_run_saved_seconds", "wall", "fp16"] == 41
    assert not [key for key in found if "amp" in key], "unknown is not zero"


def test_names_follow_the_conventions(tmp_path):
    text = as_text(read_results(run_folder(tmp_path / "run", board(ledger=LEDGER))))
    units = ("_seconds", "_bytes", "_ratio", "_images_per_second", "_info", "_goal_met", "_meets_goal")
    for family in text_string_to_metric_families(text):
        assert family.name.startswith(("hasten_run", "hasten_candidate_"))
        assert family.name.endswith((*units, "_candidates", "_candidates_left_out")), family.name
        assert not family.name.endswith(("_count", "_sum", "_total", "_bucket")), "reserved for other types"


def test_a_board_of_any_length_makes_a_bounded_number_of_series(tmp_path):
    many = [BASELINE | {"id": f"distill-{number}", "rung": "distill"} for number in range(300)]
    long = BASELINE | {"id": "x" * 1000}
    results = read_results(run_folder(tmp_path / "run", board(*many, long, pareto=["distill-299"])))
    found = samples(as_text(results))
    rows = {key[1] for key in found if key[0] == "hasten_candidate_size_bytes"}
    assert len(rows) == MAX_CANDIDATES
    assert {"int8-openvino", "eager", "distill-299"} < rows
    assert found["hasten_run_candidates_left_out",] == 303 - MAX_CANDIDATES
    results = read_results(run_folder(tmp_path / "run", board(long, winner=None)))
    assert max(len(key[1]) for key in samples(as_text(results)) if len(key) > 1) == 128


def test_any_text_in_a_label_is_escaped(tmp_path):
    odd = BASELINE | {"id": FAILED["id"]}
    found = samples(as_text(read_results(run_folder(tmp_path / "run", board(odd)))))
    assert found["hasten_candidate_size_bytes", FAILED["id"], "baseline", "torch"] == 5000


def test_a_reader_never_sees_a_part_of_the_file(tmp_path):
    results = read_results(run_folder(tmp_path / "run", board()))
    path = tmp_path / "textfile" / "hasten.prom"
    path.parent.mkdir()
    write_textfile(results, path)
    whole = path.read_text()
    stop = threading.Event()

    def write():
        while not stop.is_set():
            write_textfile(results, path)

    writer = threading.Thread(target=write)
    writer.start()
    try:
        seen = {path.read_text() for _ in range(300)}
    finally:
        stop.set()
        writer.join()
    assert seen == {whole}
    assert [each.name for each in path.parent.iterdir()] == ["hasten.prom"]


def test_every_failure_is_one_line(tmp_path, hasten):
    folder = run_folder(tmp_path / "run", board())
    for arguments, words in [
        ((folder, "--out", tmp_path / "x.txt"), "accepted: a file name that ends in .prom"),
        ((folder, "--out", tmp_path / "gone" / "x.prom"), "No such file or directory; give a folder"),
        ((tmp_path / "nothing",), "No such file or directory; give the folder that `hasten run --out` wrote"),
    ]:
        code, out, err = hasten("metrics", *arguments)
        assert (code, out, err.count("\n")) == (2, "", 1)
        assert words in err
    (folder / "leaderboard.json").write_text(json.dumps({"job": 1}))
    with pytest.raises(UserError, match="is no leaderboard that this version of hasten can read"):
        read_results(folder)


def test_without_the_package_the_way_to_it_is_said(tmp_path, hasten, monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    code, _, err = hasten("metrics", run_folder(tmp_path / "run", board()))
    assert code == 2
    assert "pip install 'hasten[prometheus]'" in err
