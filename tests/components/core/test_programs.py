"""`.pt2` files: good ones run, and ones with code in them are refused before torch sees them."""

import json
import os
import pickle
import shutil
import zipfile
from pathlib import Path

import pytest
import torch

from components.core.contracts.job import ModelSource
from components.core.errors import UserError
from components.core.models import load_torch_model
from components.core.programs import load_program


class Net(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = torch.nn.Conv2d(3, 2, 3)
        self.offset = torch.ones(2, 1, 1)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        return (self.conv(image) + self.offset).relu()


@pytest.fixture(scope="module")
def program(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("program") / "net.pt2"
    batch = torch.export.Dim("batch", min=1, max=8)
    torch.manual_seed(1)
    exported = torch.export.export(Net().eval(), (torch.rand(2, 3, 8, 8),), dynamic_shapes={"image": {0: batch}})
    torch.export.save(exported, path)
    return path


class Payload:
    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self):
        return os.system, (f"touch {self.mark}",)


def rewritten(program: Path, target: Path, change) -> Path:
    """A copy of the archive; `change(name, content)` returns each record's new content, or None to leave it out."""
    with zipfile.ZipFile(program) as old, zipfile.ZipFile(target, "w", zipfile.ZIP_STORED) as new:
        for name in old.namelist():
            content = change(name.partition("/")[2], old.read(name))
            if content is not None:
                new.writestr(name, content)
    return target


def refusal(path: Path) -> str:
    with pytest.raises(UserError) as caught:
        load_program(path)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_a_program_loads_and_runs(program):
    module = load_torch_model(ModelSource(program=f"s3://bucket/{program.name}"), program.parent)
    image = torch.rand(3, 3, 8, 8)
    torch.manual_seed(1)
    assert torch.allclose(module(image), Net()(image))


def test_pickled_weights_samples_and_objects_are_never_run(program, tmp_path):
    mark = tmp_path / "owned"
    evil = tmp_path / "evil.pt"
    torch.save({"a": Payload(mark)}, evil)

    def in_samples(name, content):
        return evil.read_bytes() if name.startswith("data/sample_inputs") else content

    def in_weights(name, content):
        if name == "data/weights/model_weights_config.json":
            document = json.loads(content)
            for entry in document["config"].values():
                entry["use_pickle"] = True
            return json.dumps(document)
        return evil.read_bytes() if name.startswith("data/weights/weight_") else content

    def in_constants(name, content):
        if name == "data/constants/model_constants_config.json":
            return content.replace(b"tensor_0", b"opaque_obj_0")
        return content

    for number, change in enumerate((in_samples, in_weights, in_constants)):
        path = rewritten(program, tmp_path / f"evil{number}.pt2", change)
        if change is in_constants:
            with zipfile.ZipFile(path, "a") as archive:
                archive.writestr("net/data/constants/opaque_obj_0", pickle.dumps(Payload(mark)))
        assert "pickled object" in refusal(path)
    assert not mark.exists()


@pytest.mark.parametrize("expression", ["__import__('os').system('touch {mark}')", "s0 + open(s0)", "s0.x"])
def test_python_in_symbolic_expressions_is_never_run(program, tmp_path, expression):
    mark = tmp_path / "owned"

    def change(name, content):
        if name != "models/model.json":
            return content
        document = json.loads(content)
        replace_expressions(document, expression.format(mark=mark))
        return json.dumps(document)

    assert "Python code" in refusal(rewritten(program, tmp_path / "evil.pt2", change))
    assert not mark.exists()


def replace_expressions(document, expression: str) -> None:
    for value in document.values() if isinstance(document, dict) else document:
        if isinstance(value, dict | list):
            replace_expressions(value, expression)
    if isinstance(document, dict) and "expr_str" in document:
        document["expr_str"] = expression


def test_guards_of_the_file_are_not_executed(program, tmp_path):
    mark = tmp_path / "owned"

    def change(name, content):
        if name != "models/model.json":
            return content
        document = json.loads(content)
        document["guards_code"] = [f"__import__('os').system('touch {mark}') == 0"]
        return json.dumps(document)

    load_program(rewritten(program, tmp_path / "evil.pt2", change))(torch.rand(1, 3, 8, 8))
    assert not mark.exists()


def test_compiled_code_is_refused(program, tmp_path):
    path = tmp_path / "compiled.pt2"
    shutil.copy(program, path)
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("net/data/aotinductor/model/code.so", b"ELF")
    assert "compiled code" in refusal(path)


def test_old_damaged_and_missing_files_are_refused(program, tmp_path):
    old = tmp_path / "old.pt2"
    with zipfile.ZipFile(old, "w") as archive:
        archive.writestr("version", "8.1")
    assert "torch 2.8 or earlier" in refusal(old)
    cut = tmp_path / "cut.pt2"
    cut.write_bytes(program.read_bytes()[:1000])
    assert "damaged" in refusal(cut)
    assert "does not exist" in refusal(tmp_path / "none.pt2")
