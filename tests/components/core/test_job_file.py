import copy
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from components.core.contracts.job import Job
from components.core.errors import UserError
from components.core.job_file import MAX_BYTES, parse_job, read_job

GOOD: dict[str, Any] = {
    "name": "trees",
    "model": {"factory": "my.models:detector", "weights": "weights.safetensors"},
    "data": {
        "train": {"annotations": "train.json", "images": "images"},
        "test": {"annotations": "../test.json", "images": "s3://bucket/images"},
    },
    "target": {"runtimes": ["openvino"], "input_shape": [1, 3, 64, 96]},
    "goal": {"min_speedup": "2x", "max_accuracy_drop": 0.02},
    "publish": {"to": "file://../published"},
}


def changed(path: str, value: object) -> dict[str, Any]:
    fields = copy.deepcopy(GOOD)
    *parents, last = path.split(".")
    inner = fields
    for parent in parents:
        inner = inner[parent]
    if value is None:
        inner.pop(last, None)
    else:
        inner[last] = value
    return fields


def refusal(fields: object, folder: Path | None = Path("/jobs/a")) -> list[str]:
    with pytest.raises(UserError) as caught:
        parse_job(yaml.safe_dump(fields, allow_unicode=True), "job.yaml", folder)
    return str(caught.value).splitlines()


def test_paths_are_relative_to_the_job_files_folder(tmp_path, monkeypatch):
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "job.yaml").write_text(yaml.safe_dump(GOOD))
    monkeypatch.chdir(tmp_path)
    job = read_job(Path("sub/job.yaml"))
    assert job.model.weights == str(tmp_path / "sub" / "weights.safetensors")
    assert job.data.test.annotations == str(tmp_path / "test.json")
    assert job.data.test.images == "s3://bucket/images"
    assert job.publish is not None
    assert job.publish.to == f"file://{tmp_path}/published"


def test_home_and_file_uris_become_paths(monkeypatch):
    monkeypatch.setenv("HOME", "/home/ada")
    fields = changed("model.weights", "~/w.safetensors")
    fields["data"]["train"]["images"] = "file:///data/images"
    job = parse_job(yaml.safe_dump(fields), folder=Path("/jobs"))
    assert job.model.weights == "/home/ada/w.safetensors"
    assert job.data.train.images == "/data/images"


def test_one_split_may_be_given_twice_by_an_alias():
    split = {"annotations": "a.json", "images": "images"}
    text = yaml.safe_dump(GOOD | {"data": {"train": split, "test": split}})
    assert "*id001" in text
    job = parse_job(text, folder=Path("/jobs"))
    assert job.data.train == job.data.test
    assert job.data.train.images == "/jobs/images"


def test_a_link_keeps_its_own_name(tmp_path):
    (tmp_path / "blob").write_bytes(b"x")
    (tmp_path / "w.safetensors").symlink_to(tmp_path / "blob")
    job = parse_job(yaml.safe_dump(changed("model.weights", "w.safetensors")), folder=tmp_path)
    assert job.model.weights == str(tmp_path / "w.safetensors")


def test_what_was_read_can_be_written_and_read_again():
    job = parse_job(yaml.safe_dump(GOOD), folder=Path("/jobs"))
    assert parse_job(job.model_dump_json()) == job
    assert Job.model_validate_json(job.model_dump_json()) == job


@pytest.mark.parametrize(
    ("path", "value", "expected"),
    [
        ("goal.min_speedup", "2 ms", "job.yaml: goal.min_speedup: '2 ms' has the unit 'ms'; accepted: x, no unit"),
        ("goal.max_p50", "20", "job.yaml: goal.max_p50: '20' has no unit; accepted: ms, us, µs, s"),
        ("goal.max_p50", "fast", "job.yaml: goal.max_p50: 'fast' is no quantity"),
        ("goal.max_accuracy_drop", 2, "job.yaml: goal.max_accuracy_drop: given 2, accepted: less than or equal to 1"),
        ("goal.max_accuracy_drop", None, "job.yaml: goal.max_accuracy_drop: is missing (absolute drop"),
        ("goal.min_speedup", "1x", "job.yaml: goal: min_speedup 1x is met by the baseline itself"),
        ("goal.min_speedup", None, "job.yaml: goal: give at least one of min_speedup"),
        ("goal.min_speeedup", "2x", "job.yaml: goal.min_speeedup: unknown key, did you mean min_speedup?; accepted:"),
        ("data.train.anotations", "x", "job.yaml: data.train.anotations: unknown key, did you mean annotations?"),
        ("zzz", 1, "job.yaml: zzz: unknown key; accepted: name, task, model"),
        ("target.runtimes", ["openvin"], "job.yaml: target.runtimes.0: given 'openvin', did you mean openvino?"),
        (
            "target.input_shape",
            [1, 3, 64],
            "job.yaml: target.input_shape: given [1, 3, 64], accepted for detection: [N, 3",
        ),
        ("target.input_shape", [1, 4, 64, 64], "job.yaml: target: input_shape [1, 4, 64, 64] is not [N >= 1, 3"),
        ("target.device", "gpu", "job.yaml: target.device: given 'gpu', accepted: text like ^(cpu|cuda"),
        ("name", "Not A Name", "job.yaml: name: given 'Not A Name', accepted: text like"),
        ("model.onnx", "m.onnx", "job.yaml: model: give exactly one of factory, program, onnx; given: factory, onnx"),
        ("model.weights", None, "job.yaml: model: factory needs weights"),
        ("model.weights", "http://a/b.pt", "job.yaml: model.weights: given 'http://a/b.pt', accepted: a path, file://"),
        ("publish.to", "ftp://a", "job.yaml: publish.to: given 'ftp://a', accepted: a path, file:// or s3://"),
    ],
)
def test_a_mistake_is_one_line_that_names_the_field(path, value, expected):
    lines = refusal(changed(path, value))
    assert any(line.startswith(expected) for line in lines), lines
    assert all(len(line) < 400 for line in lines)


def test_every_problem_is_named_at_once():
    fields = changed("goal.min_speedup", "2 ms")
    fields["target"]["runtime"] = ["openvino"]
    fields["model"]["weights"] = "gs://x/y.pt"
    assert len(refusal(fields)) == 3


def test_a_parameter_has_no_folder_for_relative_paths():
    assert refusal(GOOD, folder=None)[0].startswith(
        "job.yaml: model.weights: given 'weights.safetensors', accepted: an absolute path"
    )


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", "job: holds nothing; a job is a mapping with name, task, model"),
        ("- a", "job: holds a list"),
        ("name: [", "job: line 1: "),
        ("a: &x 1\nb: [" + "*x, " * 17 + "]", "job: line 2: more than 16 aliases"),
        ("a: &x [1, *x]", "job: line 1: the alias *x stands inside its own value"),
        ("a: *x", "job: line 1: found undefined alias 'x'"),
        ("name: a\nname: b", "job: line 2: the key 'name' is given twice"),
        ("model: !!python/object/apply:os.system ['true']", "job: line 1: could not determine a constructor"),
        ("name: 2020-99-99", "job: no valid YAML"),
        ("[" * 20000, "job: nested too deeply"),
        ("\x07", "job: no valid YAML"),
        ("a" * (MAX_BYTES + 1), "job: more than"),
        ("[1, 2]: 3", "job: line 1: a key must be plain text"),
    ],
)
def test_text_that_is_no_job(text, expected):
    with pytest.raises(UserError) as caught:
        parse_job(text)
    assert str(caught.value).startswith(expected)
    assert "\n" not in str(caught.value)


def test_files_that_are_no_job(tmp_path):
    (tmp_path / "binary.yaml").write_bytes(b"\xff\xfe\x00")
    (tmp_path / "big.yaml").write_bytes(b"a" * (MAX_BYTES + 1))
    for path, words in [
        (tmp_path / "none.yaml", "there is no such file"),
        (tmp_path, "is a folder"),
        (tmp_path / "binary.yaml", "is not UTF-8"),
        (tmp_path / "big.yaml", "a job file has at most"),
    ]:
        with pytest.raises(UserError, match=words):
            read_job(path)


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=12) | st.sampled_from(["2x", "20 ms"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=6) | st.integers(), inner, max_size=3),
    max_leaves=6,
)
FIELDS = ["name", "model", "data", "target", "goal", "budget", "ladder", "model.weights", "data.train", "publish.to"]
FIELDS += ["goal.min_speedup", "goal.max_p50", "target.input_shape", "target.runtimes", "publish", "model.kwargs"]


@given(field=st.sampled_from(FIELDS), value=VALUES)
@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_any_value_is_a_job_or_a_user_error(field, value):
    fields = changed(field, value)
    try:
        job = parse_job(yaml.safe_dump(fields), folder=Path("/jobs"))
    except UserError as error:
        assert all(line.startswith("job: ") for line in str(error).splitlines())  # noqa: PT017
    else:
        assert job.model.weights is None or Path(job.model.weights).is_absolute()


@given(st.text(max_size=200))
@settings(max_examples=200, deadline=None)
def test_any_text_is_a_job_or_a_user_error(text):
    with pytest.raises(UserError):
        parse_job(text)
