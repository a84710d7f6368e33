"""Factories and weights: what loads, and every way in which a user's files can be wrong."""

import os
import pickle
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from components.core.contracts.job import ModelSource
from components.core.errors import UserError
from components.core.models import bundled, load_torch_model, read_state_dict

FACTORY = """
import torch

def classifier(width=4, classes=2):
    return torch.nn.Sequential(torch.nn.Conv2d(3, width, 3), torch.nn.BatchNorm2d(width), torch.nn.Dropout(),
                               torch.nn.Flatten(), torch.nn.Linear(width, classes))

def broken():
    raise RuntimeError("no luck\\ntoday")

def a_dict():
    return {}

NUMBER = 3
"""


@pytest.fixture
def factory(tmp_path, monkeypatch) -> str:
    """Module of the user's, importable for the length of a test."""
    folder = tmp_path / "user code"
    folder.mkdir()
    (folder / "their_model.py").write_text(FACTORY)
    (folder / "their_needy.py").write_text("import a_package_that_is_not_there")
    (folder / "their_faulty.py").write_text("1 / 0")
    monkeypatch.syspath_prepend(str(folder))
    yield "their_model:classifier"
    for name in ("their_model", "their_needy", "their_faulty"):
        sys.modules.pop(name, None)


def source(factory: str, weights: str = "w.safetensors", **kwargs) -> ModelSource:
    return ModelSource(factory=factory, kwargs=kwargs, weights=f"/somewhere/else/{weights}")


def state(width: int = 4, classes: int = 2) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(3)
    return {
        "0.weight": torch.rand(width, 3, 3, 3, generator=generator),
        "0.bias": torch.rand(width, generator=generator),
        "1.weight": torch.rand(width, generator=generator),
        "1.bias": torch.rand(width, generator=generator),
        "1.running_mean": torch.rand(width, generator=generator),
        "1.running_var": torch.rand(width, generator=generator),
        "1.num_batches_tracked": torch.tensor(5),
        "4.weight": torch.rand(classes, width, generator=generator),
        "4.bias": torch.rand(classes, generator=generator),
    }


def refusal(call, *arguments) -> str:
    with pytest.raises(UserError) as caught:
        call(*arguments)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_bundled_takes_the_name_of_paths_and_uris(tmp_path):
    for given in ("/a/b/w.pt", "s3://bucket/prefix/w.pt", "w.pt"):
        assert bundled(given, tmp_path) == tmp_path / "w.pt"


def test_loads_safetensors_and_state_dicts_in_eval_mode(factory, tmp_path):
    save_file(state(), tmp_path / "w.safetensors")
    torch.save(state(), tmp_path / "w.pt")
    for name in ("w.safetensors", "w.pt"):
        model = load_torch_model(source(factory, name), tmp_path)
        assert not model.training
        for key, value in state().items():
            assert torch.equal(model.state_dict()[key], value)


def test_kwargs_reach_the_factory_and_nan_weights_are_the_benchmarks_business(factory, tmp_path):
    weights = state(width=6, classes=3) | {"4.bias": torch.full((3,), torch.nan)}
    save_file(weights, tmp_path / "w.safetensors")
    model = load_torch_model(source(factory, width=6, classes=3), tmp_path)
    assert torch.isnan(model[4].bias).all()


def test_batch_norm_counter_may_be_missing(factory, tmp_path):
    weights = state()
    del weights["1.num_batches_tracked"]
    save_file(weights, tmp_path / "w.safetensors")
    load_torch_model(source(factory), tmp_path)


def test_another_architecture_is_refused_with_the_first_mismatches(factory, tmp_path):
    weights = state(classes=5)
    weights["backbone.conv.weight"] = weights.pop("0.weight")
    save_file(weights, tmp_path / "w.safetensors")
    line = refusal(load_torch_model, source(factory), tmp_path)
    assert "1 of 9 keys are missing: 0.weight" in line
    assert "1 of 9 keys are unexpected: backbone.conv.weight" in line
    assert "2 of 9 keys have another shape: 4.weight (file [5, 4], model [2, 4]), 4.bias" in line
    wholly_other = {f"k{i}": torch.zeros(1) for i in range(7)}
    save_file(wholly_other, tmp_path / "w.safetensors")
    assert "7 of 7 keys are unexpected: k0, k1, k2, ..." in refusal(load_torch_model, source(factory), tmp_path)


class Payload:
    """What an attacker puts into a checkpoint."""

    def __init__(self, command: str) -> None:
        self.command = command

    def __reduce__(self):
        return os.system, (self.command,)


@pytest.mark.parametrize("writer", ["torch", "pickle"])
def test_code_in_a_pickle_is_refused_and_never_run(tmp_path, writer):
    mark = tmp_path / "owned"
    content = {"w": torch.zeros(1), "payload": Payload(f"touch {mark}")}
    path = tmp_path / "w.pt"
    if writer == "torch":
        torch.save(content, path)
    else:
        path.write_bytes(pickle.dumps(content))
    assert "never run" in refusal(read_state_dict, path)
    assert not mark.exists()


def test_a_whole_pickled_model_is_refused(tmp_path):
    torch.save(torch.nn.Linear(2, 2), tmp_path / "w.pt")
    assert "never run" in refusal(read_state_dict, tmp_path / "w.pt")


def test_truncated_and_foreign_files_are_refused(tmp_path):
    torch.save(state(), tmp_path / "w.pt")
    save_file(state(), tmp_path / "w.safetensors")
    for name in ("w.pt", "w.safetensors"):
        whole = (tmp_path / name).read_bytes()
        for length in (0, 5, len(whole) // 2, len(whole) - 1):
            (tmp_path / name).write_bytes(whole[:length])
            assert name in refusal(read_state_dict, tmp_path / name)
    (tmp_path / "text.pt").write_text("these are no weights")
    assert "text.pt" in refusal(read_state_dict, tmp_path / "text.pt")
    assert "do not exist" in refusal(read_state_dict, tmp_path / "nowhere.pt")


def test_a_training_checkpoint_is_refused_with_a_hint(tmp_path):
    torch.save({"epoch": 3, "model": state()}, tmp_path / "w.pt")
    line = refusal(read_state_dict, tmp_path / "w.pt")
    assert "epoch" in line
    assert "checkpoint['model']" in line
    torch.save([1, 2], tmp_path / "w.pt")
    assert "list" in refusal(read_state_dict, tmp_path / "w.pt")


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("no_such_module_at_all:f", "no module 'no_such_module_at_all'"),
        ("their_model.inner:f", "no module 'their_model.inner'"),
        ("their_needy:f", "needs 'a_package_that_is_not_there'"),
        ("their_faulty:f", "ZeroDivisionError"),
        ("their_model:missing", "does not exist in their_model; functions there: classifier, broken, a_dict"),
        ("their_model:NUMBER", "is no function"),
        ("their_model:broken", "raised RuntimeError: no luck today"),
        ("their_model:a_dict", "returned a dict"),
    ],
)
def test_factories_that_cannot_work_are_refused_in_one_line(factory, tmp_path, name, words):
    save_file(state(), tmp_path / "w.safetensors")
    assert words in refusal(load_torch_model, source(name), tmp_path)


def test_wrong_kwargs_are_named(factory, tmp_path):
    save_file(state(), tmp_path / "w.safetensors")
    assert "depth=3" in refusal(load_torch_model, source(factory, depth=3), tmp_path)


def test_an_onnx_model_is_no_torch_model(tmp_path: Path):
    assert "no torch model" in refusal(load_torch_model, ModelSource(onnx="m.onnx"), tmp_path)
