"""Classifiers' data: found, checked, given numbers; and every mistake in one line."""

import json

import numpy as np
import pytest
import soundfile
from PIL import Image

from components.core.contracts.job import Job, Task
from components.core.errors import UserError
from components.core.job_file import parse_job
from components.fetch.run import run_fetch
from components.fetch.sources import source_digest
from fixtures.labelled import labelled_fields, write_first_weights


def image_fields(folder, **data):
    """Class folders 2, 10 and 9 with an image each."""
    for split in ("train", "test"):
        for label in ("2", "10", "9"):
            (folder / split / label).mkdir(parents=True)
            pixels = np.random.default_rng(100 * len(split) + int(label)).integers(0, 255, (8, 8, 3), np.uint8)
            Image.fromarray(pixels).save(folder / split / label / "a.png")
    (folder / "w.safetensors").write_bytes(b"weights")
    return {
        "name": "images",
        "task": "classification",
        "model": {"factory": "user_models:net", "weights": str(folder / "w.safetensors")},
        "data": {"train": {"images": str(folder / "train")}, "test": {"images": str(folder / "test")}} | data,
        "target": {"runtimes": ["onnxruntime"], "input_shape": [1, 3, 8, 8]},
        "goal": {"min_speedup": "2x", "max_accuracy_drop": 0.02},
    }


def listed(bundle, split):
    return json.loads((bundle / "data" / split / "annotations.json").read_text())


def csv_split(folder, text):
    (folder / "list.csv").write_text(text)
    return {"annotations": str(folder / "list.csv"), "images": str(folder / "train")}


def test_class_folders_become_numbered_classes(tmp_path):
    card = run_fetch(Job.model_validate(image_fields(tmp_path)), tmp_path / "bundle")
    document = listed(tmp_path / "bundle", "train")
    assert document["labels"] == ["2", "9", "10"]  # as numbers: 10 comes last
    assert [(one["name"], one["label"]) for one in document["samples"]] == [
        ("10/a.png", 2),
        ("2/a.png", 0),
        ("9/a.png", 1),
    ]
    assert (tmp_path / "bundle" / "data" / "train" / "images" / "10" / "a.png").is_file()
    assert card.train.annotations is None
    assert (card.train.samples, card.train.images, card.shared_images) == (3, 3, 0)


def test_the_jobs_own_order_of_classes_counts(tmp_path):
    fields = image_fields(tmp_path)
    fields["data"]["labels"] = ["10", "9", "2", "never seen"]
    run_fetch(Job.model_validate(fields), tmp_path / "bundle")
    assert [one["label"] for one in listed(tmp_path / "bundle", "test")["samples"]] == [0, 2, 1]


def test_a_list_names_images_and_labels(tmp_path):
    fields = image_fields(tmp_path)
    fields["data"]["train"] = csv_split(tmp_path, "label,file,more\ncat,2/a.png,x\ndog,10/a.png,y\n")
    fields["data"]["test"] = fields["data"]["train"]
    card = run_fetch(Job.model_validate(fields), tmp_path / "bundle")
    assert listed(tmp_path / "bundle", "train")["labels"] == ["cat", "dog"]
    assert card.shared_images == 2
    assert card.train.annotations.source.endswith("list.csv")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("name,label\n2/a.png,cat\n", r"list\.csv has the columns 'name, label'; missing: file; give a CSV file"),
        ("file,label\n2/a.png,cat\n9/a.png,\n", "row 3 lacks file or label"),
        ("file,label\n2/a.png,cat\n2/a.png,dog\n", "files given twice: 1"),
        ("file,label\n2/b.png,cat\n9/a.png,dog\n", r"missing files: 1 \('2/b\.png'\)"),
        ("file,label\n../2/a.png,cat\n9/a.png,dog\n", "file names that cannot be used: 1"),
        ("file,label\n2/a.png,cat\n9/a.png,cat\n", "has 1 class"),
        ("file,label\n", "lists no samples"),
        ('file,label\n"2/a.png,cat\n', "is no CSV file"),
    ],
)
def test_a_list_that_cannot_be_used_is_refused_in_one_line(tmp_path, text, words):
    fields = image_fields(tmp_path)
    fields["data"]["train"] = fields["data"]["test"] = csv_split(tmp_path, text)
    with pytest.raises(UserError, match=words) as refusal:
        run_fetch(Job.model_validate(fields), tmp_path / "bundle")
    assert "\n" not in str(refusal.value)
    assert not (tmp_path / "bundle").exists()


def test_a_class_that_only_test_has_is_refused(tmp_path):
    fields = image_fields(tmp_path)
    (tmp_path / "test" / "11").mkdir()
    (tmp_path / "test" / "2" / "a.png").rename(tmp_path / "test" / "11" / "a.png")
    with pytest.raises(
        UserError, match=r"data\.test\.images: .* 1 classes are not among those of data\.train \('11'\)"
    ):
        run_fetch(Job.model_validate(fields), tmp_path / "bundle")


def test_a_folder_without_class_folders_is_refused(tmp_path):
    fields = image_fields(tmp_path)
    fields["data"]["test"] = {"images": str(tmp_path / "test" / "2")}
    with pytest.raises(UserError, match=r"has no images in class folders \(1 beside them\)"):
        run_fetch(Job.model_validate(fields), tmp_path / "bundle")


def test_a_damaged_image_leaves_no_bundle(tmp_path):
    fields = image_fields(tmp_path)
    (tmp_path / "train" / "9" / "a.png").write_bytes(b"no image")
    with pytest.raises(UserError, match="files that are no readable image: 1"):
        run_fetch(Job.model_validate(fields), tmp_path / "bundle")
    assert not (tmp_path / "bundle").exists()


def test_texts_and_their_tokenizer_are_brought(tmp_path):
    fields = labelled_fields(Task.TEXT, tmp_path / "given")
    write_first_weights(Task.TEXT, tmp_path / "given" / "weights.safetensors")
    job = Job.model_validate(fields)
    before = source_digest(job)
    card = run_fetch(job, tmp_path / "bundle")
    assert [file.file for file in card.model] == ["model/weights.safetensors", "model/tokenizer.json"]
    assert card.train.categories == {0: "harbour", 1: "kitchen"}
    assert (card.train.samples, card.train.images, card.test.samples) == (40, 0, 20)
    assert all(one["text"] for one in listed(tmp_path / "bundle", "test")["samples"])
    (tmp_path / "given" / "tokenizer.json").write_text('{"model": {}}')
    assert source_digest(job) != before
    with pytest.raises(UserError, match=r"preprocess\.tokenizer: .* \(it has no vocabulary\)"):
        run_fetch(job, tmp_path / "bundle")


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("{oops", "line 2 is no JSON"),
        ('{"text": "x"}', "line 2 is no object with text and label"),
        ('{"text": 3, "label": "a"}', "line 2: text is no text"),
    ],
)
def test_a_line_that_is_no_text_is_refused(tmp_path, line, words):
    fields = labelled_fields(Task.TEXT, tmp_path / "given")
    write_first_weights(Task.TEXT, tmp_path / "given" / "weights.safetensors")
    (tmp_path / "given" / "test.jsonl").write_text('{"text": "x", "label": "harbour"}\n' + line)
    with pytest.raises(UserError, match=words):
        run_fetch(Job.model_validate(fields), tmp_path / "bundle")


def test_recordings_of_another_rate_are_refused(tmp_path):
    fields = labelled_fields(Task.AUDIO, tmp_path / "given")
    write_first_weights(Task.AUDIO, tmp_path / "given" / "weights.safetensors")
    soundfile.write(tmp_path / "given" / "audio" / "00.wav", np.zeros(100), 16000)
    (tmp_path / "given" / "audio" / "03.wav").write_bytes(b"RIFF")
    with pytest.raises(UserError, match=r"not have the 8000 Hz .* has 16000.*no readable WAV or FLAC: 1"):
        run_fetch(Job.model_validate(fields), tmp_path / "bundle")


TEXT_JOB = """
name: t
task: text
model: {onnx: /m.onnx}
data: {train: {annotations: /a.csv}, test: {annotations: /b.csv}}
preprocess: {tokenizer: /t.json}
target: {runtimes: [onnxruntime], input_shape: [1, 8]}
goal: {min_speedup: 2x, max_accuracy_drop: 0.1}
"""


def test_the_metric_follows_the_task():
    assert parse_job(TEXT_JOB).goal.metric == "accuracy"


@pytest.mark.parametrize(
    ("old", "new", "line"),
    [
        ("annotations: /b.csv", "images: /b", "data.test.annotations: is missing (path or URI of a CSV or JSONL"),
        ("/b.csv}", "/b.csv, audio: /x}", "data.test.audio: the task text has no such field"),
        ("[1, 8]", "[1, 3, 32, 32]", "target.input_shape: given [1, 3, 32, 32], accepted for text: [N, tokens]"),
        ("max_accuracy", "metric: map50, max_accuracy", "goal.metric: given 'map50', accepted for text: accuracy"),
        ("{tokenizer: /t.json}", "{}", "preprocess.tokenizer: is missing"),
        ("/t.json}", "/t.json, fit: crop}", "preprocess.fit: has no meaning for text; accepted: tokenizer"),
        ("task: text", "task: texts", "task: given 'texts', did you mean text?"),
    ],
)
def test_what_does_not_fit_the_task_is_one_line_with_its_field(old, new, line):
    with pytest.raises(UserError) as refusal:
        parse_job(TEXT_JOB.replace(old, new))
    assert str(refusal.value).startswith(f"job: {line}"), str(refusal.value)
