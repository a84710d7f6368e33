"""What teachers answered is kept by content: damaged files are asked about again, new samples move no other."""

from pathlib import Path

import numpy as np
import pytest
from distill_jobs import STUDENTS, classifier, make_bundle, save_weights
from PIL import Image

from components.core.tasks.adapter import read_split, task_adapter
from components.distill import answers
from components.distill.answers import ask, sample_digest
from components.distill.cache import AnswerStore, store_of
from components.distill.samples import epoch_of
from components.distill.teachers import OpenTeacher


@pytest.fixture
def small_files(monkeypatch):
    """Files of about two samples, so that a few samples are several of them."""
    monkeypatch.setattr(answers, "_SHARD", 2)


def asked_of(folder: Path, store: AnswerStore):
    job, bundle = make_bundle(folder, "classification", {"student": STUDENTS["classification"]})
    samples = read_split(task_adapter(job, bundle), bundle, "unlabelled").samples
    found, count = ask(job, bundle, store, 0, samples, mirrored=True)
    return found, count, samples


def files(store: AnswerStore) -> dict[str, bytes]:
    root = Path(store.uri)
    return {str(path.relative_to(root)): path.read_bytes() for path in root.rglob("*.safetensors")}


def test_answers_are_what_the_teacher_says_of_both_views(tmp_path, small_files):
    store = AnswerStore(str(tmp_path / "answers"))
    found, count, samples = asked_of(tmp_path / "job", store)
    assert (count.answers, count.reused) == (6, 0)
    assert count.bytes == sum(len(content) for content in files(store).values())
    job, bundle = make_bundle(tmp_path / "job", "classification", {"student": STUDENTS["classification"]})
    adapter = task_adapter(job, bundle)
    with OpenTeacher(job, bundle, 0) as teacher:
        for sample in samples:
            inputs = adapter.encode(sample.load())[0]
            mirrored = {name: np.ascontiguousarray(value[..., ::-1]) for name, value in inputs.items()}
            for view, given in enumerate((inputs, mirrored)):
                (expected,) = teacher.answers([given])
                said = found.of(sample_digest(sample), view)["logits"]
                assert np.allclose(said, expected["logits"], atol=1e-5)


def test_a_damaged_file_is_asked_about_again_and_nothing_else(tmp_path, small_files):
    store = AnswerStore(str(tmp_path / "answers"))
    asked_of(tmp_path / "job", store)
    before = files(store)
    assert len(before) > 1
    victim = sorted(before)[0]
    (tmp_path / "answers" / victim).write_bytes(before[victim][:40])
    _, count, _ = asked_of(tmp_path / "job", store)
    assert 0 < count.reused < count.answers
    assert files(store) == before


def test_a_new_sample_costs_its_own_file_and_no_other(tmp_path, small_files):
    store = AnswerStore(str(tmp_path / "answers"))
    asked_of(tmp_path / "job", store)
    before = files(store)
    Image.fromarray(np.full((16, 16, 3), 90, np.uint8)).save(tmp_path / "job" / "unlabelled" / "new.png")
    _, count, _ = asked_of(tmp_path / "job", store)
    assert count.answers == 7
    assert 0 < count.reused < 6 or len(before) < 2
    assert len(files(store).keys() - before.keys()) == 1


def test_the_same_picture_under_another_name_is_the_same_sample(tmp_path):
    store = AnswerStore(str(tmp_path / "answers"))
    asked_of(tmp_path / "job", store)
    (tmp_path / "job" / "unlabelled" / "00.png").rename(tmp_path / "job" / "unlabelled" / "renamed.png")
    _, count, samples = asked_of(tmp_path / "job", store)
    assert "renamed.png" in [sample.name for sample in samples]
    assert count.reused == count.answers == 6


def test_another_teacher_or_its_code_has_answers_of_its_own(tmp_path):
    store = AnswerStore(str(tmp_path / "answers"))
    asked_of(tmp_path / "job", store)
    save_weights(tmp_path / "job" / "weights.pt", classifier(seed=9))
    _, count, _ = asked_of(tmp_path / "job", store)
    assert count.reused == 0
    assert len({name.partition("/")[0] for name in files(store)}) == 2


def test_where_answers_are_kept(tmp_path, monkeypatch):
    monkeypatch.setenv("HASTEN_CACHE", str(tmp_path))
    assert store_of("s3://kept/here", "s3://run/bundle").uri == "s3://kept/here"
    assert store_of(None, "s3://run/bundle/").uri == "s3://run/bundle-answers"
    assert store_of(None, "/somewhere").uri == str(tmp_path / "answers")


@pytest.mark.parametrize(
    ("labelled", "unlabelled", "share", "counts"),
    [
        (4, 0, None, (4, 0)),
        (4, 6, None, (4, 6)),
        (4, 6, 0.5, (6, 6)),
        (10, 3, 0.5, (10, 10)),
        (10, 0, 0.5, (10, 0)),
        (3, 9, 0.75, (3, 9)),
    ],
)
def test_the_share_of_an_epoch_without_labels(labelled, unlabelled, share, counts):
    epoch = epoch_of(labelled, unlabelled, share)
    assert (sum(one < labelled for one in epoch), sum(one >= labelled for one in epoch)) == counts
    assert set(epoch) == set(range(labelled + unlabelled))  # nothing is left out
