"""The job's `distill`: paths made absolute, and what is refused in one line."""

import pytest
import yaml

from components.core.contracts.job import Runtime
from components.core.errors import UserError
from components.core.factory_code import factories
from components.core.job_file import read_job

SPLIT = {"annotations": "boxes.json", "images": "images"}
STUDENT = {"factory": "mine.models:small"}


def job_fields():
    return {
        "name": "tiny",
        "model": {"factory": "mine.models:big", "weights": "weights.pt"},
        "data": {"train": SPLIT, "test": SPLIT},
        "target": {"runtimes": ["onnxruntime"], "input_shape": [1, 3, 96, 96]},
        "goal": {"min_speedup": "1.2x", "max_accuracy_drop": 1.0},
    }


def written(tmp_path, distill, **changes):
    fields = job_fields() | {"distill": distill} | changes
    path = tmp_path / "job.yaml"
    path.write_text(yaml.safe_dump(fields))
    return path


def test_paths_are_relative_to_the_job(tmp_path):
    teachers = [
        {"factory": "mine.models:big", "weights": "big.pt"},
        {"onnx": "s3://models/big.onnx", "runtime": "openvino"},
    ]
    distill = {"student": STUDENT | {"weights": "small.pt"}, "teachers": teachers, "answers": "kept"}
    job = read_job(written(tmp_path, distill))
    assert job.distill is not None
    assert job.distill.student.weights == str(tmp_path / "small.pt")
    assert job.distill.teachers[0].weights == str(tmp_path / "big.pt")
    assert (job.distill.teachers[1].onnx, job.distill.teachers[1].runtime) == ("s3://models/big.onnx", Runtime.OPENVINO)
    assert job.distill.answers == str(tmp_path / "kept")
    named = factories(job)
    assert named["distill.student.factory"] == "mine.models:small"
    assert named["distill.teachers.0.factory"] == "mine.models:big"


@pytest.mark.parametrize(
    ("distill", "line"),
    [
        ({}, "distill.student: is missing"),
        ({"student": STUDENT, "temprature": 2}, "distill.temprature: unknown key, did you mean temperature?"),
        ({"student": STUDENT, "soft": 0}, "distill: soft is 0 and there are no hints"),
        ({"student": STUDENT, "temperature": 0}, "distill.temperature: given 0, accepted: greater than 0"),
        (
            {"student": STUDENT, "hints": [{"student": "a", "teacher": "b", "of": 1}]},
            "distill: hints.0.of: given 1, accepted: 0, the job's own model",
        ),
        (
            {"student": STUDENT, "teachers": [{"onnx": "a.onnx"}], "hints": [{"student": "a", "teacher": "b"}]},
            "distill: hints.0.of: teacher 0 is a file without named parts; give a factory",
        ),
        (
            {"student": STUDENT, "teachers": [{"onnx": "a.onnx", "runtime": "tensorrt"}]},
            "distill.teachers.0: runtime: given tensorrt, accepted: onnxruntime or openvino, of an .onnx file",
        ),
        ({"student": STUDENT, "teachers": [{"onnx": "ftp://a.onnx"}]}, "distill.teachers.0.onnx: given 'ftp://a.onnx'"),
    ],
)
def test_a_mistake_is_one_line_with_its_field(tmp_path, distill, line):
    with pytest.raises(UserError) as caught:
        read_job(written(tmp_path, distill))
    assert any(one.startswith(f"job.yaml: {line}") for one in str(caught.value).splitlines()), str(caught.value)


def test_unlabelled_data_is_of_the_tasks_kind(tmp_path):
    data = job_fields()["data"] | {"unlabelled": {"texts": "more.jsonl"}}
    with pytest.raises(UserError, match=r"data.unlabelled: the task detection needs images"):
        read_job(written(tmp_path, {"student": STUDENT}, data=data))
