"""A classifier's backbone is the whole network: as many outputs, pretrained weights but for the last layer."""

import pytest
import torch
from torch import nn

from components.backbone.classifiers import build_classifier, classes_of, free_keys
from components.backbone.entrants import CLASSIFIER, entrants
from components.backbone.run import run_backbone
from components.backbone.weights import load_body
from components.core.contracts.job import Job, Task
from components.core.contracts.variant import Status
from components.core.errors import StepError, UserError
from components.core.models import load_torch_model
from components.fetch.run import run_fetch
from fixtures.labelled import labelled_fields, write_first_weights

SIDE = 28


def bundle_of(tmp_path, task=Task.CLASSIFICATION, **backbone):
    settings = {"keep": 1, "halving_rounds": 1, "probe_rounds": 3, "probe_round_time": "0.05 s", "probe_int8": False}
    training = {"epochs": 2, "batch": 8, "learning_rate": 0.003, "flip": False, "precision": "fp32"}
    fields = labelled_fields(task, tmp_path / "job", backbone=settings | backbone, training=training)
    fields["goal"] = {"max_p50": "10 s", "max_accuracy_drop": 1.0}
    fields["target"]["runtimes"] = ["onnxruntime"]
    job = Job.model_validate(fields)
    write_first_weights(task, tmp_path / "job" / "weights.safetensors")
    run_fetch(job, tmp_path / "bundle")
    return job, tmp_path / "bundle"


@pytest.mark.parametrize("network", ["timm/lcnet_035", "torchvision/shufflenet_v2_x0_5", "torchvision/squeezenet1_1"])
def test_a_network_has_as_many_outputs_and_takes_pretrained_weights_of_other_classes(network):
    model, other = build_classifier(network, 10), build_classifier(network, 1000)
    assert classes_of(model, (1, 3, 64, 64)) == 10
    assert model.training  # as it was
    free = free_keys(model)
    before = {key: value.clone() for key, value in model.state_dict().items() if key in free}
    assert before
    load_body(model, other.state_dict(), network, free=free)
    own, given = model.state_dict(), other.state_dict()
    assert all(torch.equal(value, before[key] if key in free else given[key]) for key, value in own.items())


def test_what_gives_no_logits_is_refused():
    with pytest.raises(StepError, match="expected logits"):
        classes_of(nn.Identity(), (1, 3, 32, 32))
    with pytest.raises(StepError, match="torchvision/googlenet has auxiliary heads"):
        build_classifier("torchvision/googlenet", 10)


def test_candidates_are_networks_with_the_users_classes(tmp_path):
    job, bundle = bundle_of(tmp_path, candidates=["timm/lcnet_035"], input_sizes=[[28, 28], [32, 32]])
    small, large = entrants(job, bundle)
    assert (small.id, large.id) == ("timm-lcnet_035-28x28", "timm-lcnet_035-32x32")
    assert large.job.target.input_shape == (1, 3, 32, 32)
    assert small.job.model.factory == CLASSIFIER
    facts = small.prepare(tmp_path / "weights.safetensors")
    assert facts.family == "timm/lcnet at 28 x 28"
    again = tmp_path / "again.safetensors"
    small.prepare(again)
    assert again.read_bytes() == (tmp_path / "weights.safetensors").read_bytes()  # of budget.seed
    assert load_torch_model(small.job.model, tmp_path)(torch.rand(2, 3, SIDE, SIDE)).shape == (2, 10)


def test_other_tasks_have_no_such_backbones(tmp_path):
    job, bundle = bundle_of(tmp_path, Task.AUDIO)
    with pytest.raises(UserError, match="task audio: timm's and torchvision's backbones look at images"):
        entrants(job, bundle)
    card, _ = run_backbone(job, bundle, tmp_path / "out")
    assert card.status is Status.SKIPPED


@pytest.mark.slow
def test_the_search_hands_on_a_trained_classifier(tmp_path, monkeypatch):
    monkeypatch.setenv("HASTEN_CACHE", str(tmp_path / "cache"))
    job, bundle = bundle_of(tmp_path, candidates=["timm/lcnet_035", "torchvision/shufflenet_v2_x0_5"])
    card, recipe = run_backbone(job, bundle, tmp_path / "out")
    assert card.status is Status.OK, card.reason
    assert card.search is not None
    assert sorted(entry.outcome for entry in card.search.entries) == ["dropped", "winner"]
    assert all(entry.probe.latency_ms for entry in card.search.entries)
    assert set(card.accuracy_after or {}) == {"accuracy", "macro_f1"}
    assert load_torch_model(recipe.model, tmp_path / "out" / "model")(torch.rand(2, 3, SIDE, SIDE)).shape == (2, 10)
