"""The training rung on a classifier of each kind: it learns, and its bundle is one that export takes."""

import pytest

from components.amp.run import run_amp
from components.core.contracts.job import Job, Task
from components.core.contracts.variant import Status
from components.export.run import run_export
from components.fetch.card import FetchCard
from components.fetch.run import run_fetch
from fixtures.labelled import labelled_fields, write_first_weights


@pytest.mark.parametrize(("task", "epochs"), [(Task.CLASSIFICATION, 4), (Task.TEXT, 9), (Task.AUDIO, 9)])
def test_an_untrained_classifier_learns_and_exports(task, epochs, tmp_path):
    training = {"epochs": epochs, "batch": 8, "learning_rate": 5e-3, "precision": "fp32", "validation": 0.3}
    fields = labelled_fields(task, tmp_path / "given", training=training | {"flip": False})
    write_first_weights(task, tmp_path / "given" / "weights.safetensors")
    job = Job.model_validate(fields)
    fetched = run_fetch(job, tmp_path / "bundle")
    card, recipe = run_amp(job, tmp_path / "bundle", tmp_path / "trained")
    assert card.status is Status.OK, card.reason
    assert set(card.accuracy_before) == {"accuracy", "macro_f1"}
    assert card.accuracy_after["accuracy"] > card.accuracy_before["accuracy"]
    assert card.epochs[-1]["losses"]["cross_entropy"] < card.epochs[0]["losses"]["cross_entropy"]
    trained = FetchCard.read(tmp_path / "trained")
    assert trained.train == fetched.train
    assert [file.file for file in trained.model[1:]] == [file.file for file in fetched.model[1:]]
    manifest = run_export(recipe, tmp_path / "trained", tmp_path / "exported")
    assert all(variant.status is Status.OK for variant in manifest.variants)
