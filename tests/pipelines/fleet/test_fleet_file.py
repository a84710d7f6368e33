"""Fleet files: what they share, what they refuse, how small they travel, and that 200 models take seconds."""

import json
import time

import pytest
import yaml
from fleet_files import DEFAULTS, write_fleet

from components.core.contracts.job import Job
from components.core.errors import UserError
from pipelines.fleet.contract import MAX_MODELS, Fleet, is_fleet, merged, read_fleet
from pipelines.fleet.packing import MAX_PACKED, PREFIX, pack, unpack
from pipelines.fleet.rows import Row, State, Summary, failed, markdown
from pipelines.fleet.submitting import compile_fleet


def refusal(path) -> str:
    with pytest.raises(UserError) as caught:
        read_fleet(path)
    return str(caught.value)


def test_a_jobs_own_fields_win_over_the_fleets(tmp_path):
    path = write_fleet(tmp_path, 2)
    own = {"name": "special", "model": {"onnx": "m.onnx"}, "goal": {"max_accuracy_drop": 0.5}, "target": {"threads": 2}}
    (tmp_path / "jobs" / "002.yaml").write_text(yaml.safe_dump(own))
    fleet, folders = read_fleet(path)
    assert [job.name for job in fleet.jobs] == ["model-000", "model-001", "special"]
    special = fleet.job("special")
    assert special.goal.max_accuracy_drop == 0.5
    assert special.goal.min_speedup == 2
    assert (special.target.threads, special.target.input_shape) == (2, (1, 3, 320, 320))
    assert special.model.onnx == str(tmp_path / "jobs" / "m.onnx")
    assert fleet.job("model-000").goal.max_accuracy_drop == 0.01
    assert folders["special"] == tmp_path / "jobs"
    with pytest.raises(UserError, match="no job is called 'nobody'"):
        fleet.job("nobody")


def test_paths_in_defaults_are_relative_to_the_fleet(tmp_path):
    data = {split: {"annotations": f"{split}.json", "images": split} for split in ("train", "test")}
    fleet, _ = read_fleet(write_fleet(tmp_path, 1, defaults=DEFAULTS | {"data": data}))
    assert fleet.jobs[0].data.train.annotations == str(tmp_path / "train.json")


def test_merging_changes_nothing_that_it_is_given():
    defaults = {"a": {"b": [1], "c": 2}, "d": 3}
    result = merged(defaults, {"a": {"b": [4]}, "e": 5})
    assert result == {"a": {"b": [4], "c": 2}, "d": 3, "e": 5}
    result["a"]["b"].append(6)
    assert defaults == {"a": {"b": [1], "c": 2}, "d": 3}


def test_every_mistake_is_named_at_once_with_its_file(tmp_path):
    path = write_fleet(tmp_path, 3)
    (tmp_path / "jobs" / "000.yaml").write_text("name: Bad Name\nmodel: {onnx: m.onnx}\n")
    (tmp_path / "jobs" / "001.yaml").write_text("name: model-002\nmodel: {onx: m.onnx}\n")
    lines = refusal(path).splitlines()
    assert any(line.startswith("000.yaml: name: given 'Bad Name'") for line in lines)
    assert any("001.yaml: model.onx: unknown key, did you mean onnx?" in line for line in lines)
    assert all(line.isprintable() for line in lines)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"jobs": []}, "jobs: given []"),
        ({"jobs": ["none/*.yaml"]}, "no file matches 'none/*.yaml'"),
        ({"jobs": ["none.yaml"]}, "there is no such file"),
        ({"parallelism": 0}, "parallelism: given 0"),
        ({"paralelism": 3}, "unknown key, did you mean parallelism?"),
        ({"name": "../x"}, "name: given '../x'"),
        ({"defaults": {"data": {"train": {"images": "http://h/x"}}}}, "defaults.data.train.images: given 'http://h/x'"),
    ],
)
def test_mistakes_in_the_fleet_are_one_line(tmp_path, changes, words):
    assert words in refusal(write_fleet(tmp_path, 1, **changes))


def test_two_jobs_of_one_name_are_refused(tmp_path):
    path = write_fleet(tmp_path, 2)
    text = (tmp_path / "jobs" / "000.yaml").read_text()
    (tmp_path / "jobs" / "001.yaml").write_text(text)
    assert "001.yaml: name: 'model-000' is the name of 000.yaml too" in refusal(path)


def test_more_models_than_one_run_can_collect_are_refused_before_they_are_read(tmp_path):
    assert f"201 files; a fleet has at most {MAX_MODELS}" in refusal(write_fleet(tmp_path, MAX_MODELS + 1))


def test_a_job_is_no_fleet(tmp_path):
    path = write_fleet(tmp_path, 1)
    assert is_fleet(path)
    assert not is_fleet(tmp_path / "jobs" / "000.yaml")


def test_200_models_are_planned_packed_and_compiled_in_seconds(tmp_path):
    path = write_fleet(tmp_path, MAX_MODELS)
    began = time.process_time()
    fleet, _ = read_fleet(path)
    packed = pack(fleet)
    compiled = compile_fleet(fleet.parallelism, tmp_path)
    assert time.process_time() - began < 30
    assert len(packed) < 20_000
    assert unpack(packed) == fleet
    # The pipeline is as large for 200 models as for one.
    assert compiled.stat().st_size < 50_000
    assert "parallelismLimit: 3" in compiled.read_text()


def test_plain_json_is_a_fleet_too(tmp_path):
    fleet, _ = read_fleet(write_fleet(tmp_path, 2))
    text = json.dumps(
        {
            "name": "x",
            "parallelism": 1,
            "jobs": [json.loads(job.model_dump_json(exclude_defaults=True)) for job in fleet.jobs],
        }
    )
    assert [job.name for job in unpack(text).jobs] == ["model-000", "model-001"]


@pytest.mark.parametrize("text", ["", "{}", "zlib:", "zlib:%%%", "zlib:AAAA", "[1]", '{"name": "x", "jobs": "y"}'])
def test_what_is_no_fleet_is_one_line(text):
    with pytest.raises(UserError) as caught:
        unpack(text)
    assert str(caught.value).startswith("fleet: ")
    assert "\n" not in str(caught.value)


def test_a_parameter_that_unpacks_to_gigabytes_is_refused():
    import base64
    import zlib

    bomb = PREFIX + base64.b64encode(zlib.compress(bytes(100_000_000), 9)).decode()
    with pytest.raises(UserError, match="unpacks to more than"):
        unpack(bomb)


def test_rows_of_the_largest_fleet_fit_into_a_command_line(tmp_path):
    row = failed("m" * 63, "x" * 1000, "https://kubeflow.example.org/#/runs/details/" + "0" * 36, 86400.123)
    rows = [row.model_dump_json(exclude_defaults=True)] * MAX_MODELS
    # KFP hands a step its inputs as one JSON argument, in which the rows are text.
    assert len(json.dumps({"inputs": {"parameterValues": {"rows": rows, "fleet": "x" * MAX_PACKED}}})) < 131072


def test_the_table_shows_text_from_outside_as_text():
    rows = [Row(name="a", state=State.MET, winner="int8", p50_ms=4.2, speedup=3.1, drop=0.004, seconds=61.0)]
    rows.append(failed("b", "<script>|boom|\nsecond line"))
    table = markdown(Summary(name="f", rows=rows))
    assert "1 of 2 models meet their goal, 0 do not, 1 failed." in table
    assert "| a | met | int8 | 4.20 ms | 3.10x | \\+0.004 | 61 s |  |" in table
    assert "<script>" not in table
    assert all(line.count("|") - line.count("\\|") == 9 for line in table.splitlines() if line.startswith("|"))


def test_a_fleet_is_a_contract():
    job = {"name": "a", "model": {"onnx": "/m.onnx"}, **DEFAULTS}
    fleet = Fleet(name="f", parallelism=1, jobs=[Job.model_validate(job)])
    assert Fleet.model_validate_json(fleet.model_dump_json()) == fleet
