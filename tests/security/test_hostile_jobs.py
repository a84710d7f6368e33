"""Jobs made to run commands, to fill the memory, or to leave their folder: refused in one line, and nothing happens."""

import re
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import yaml

from components.core.contracts.job import ModelSource
from components.core.errors import UserError
from components.core.job_file import MAX_BYTES, parse_job, read_job
from components.core.models import FACTORIES, check_package

ROOT = Path(__file__).parent.parent.parent
SPLIT = {"annotations": "/d/a.json", "images": "/d/images"}
JOB: dict[str, Any] = {
    "name": "a",
    "model": {"onnx": "/m.onnx"},
    "data": {"train": SPLIT, "test": SPLIT},
    "target": {"runtimes": ["onnxruntime"], "input_shape": [1, 3, 64, 64]},
    "goal": {"min_speedup": "2x", "max_accuracy_drop": 0.02},
}


def refusal(text: str) -> str:
    began = time.monotonic()
    with pytest.raises(UserError) as caught:
        parse_job(text)
    assert time.monotonic() - began < 5
    return str(caught.value)


def laughs(levels: int) -> str:
    lines = ["l0: &l0 [ha, ha, ha, ha, ha, ha, ha, ha, ha]"]
    lines += [f"l{n}: &l{n} [{', '.join([f'*l{n - 1}'] * 9)}]" for n in range(1, levels)]
    return "\n".join(lines)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (laughs(30), "more than 16 aliases"),
        ("a: &a [*a]", "stands inside its own value"),
        ("[" * 50_000, "nested too deeply"),
        ("name: a\n" * 40_000, f"more than {MAX_BYTES} bytes"),
        ("!!python/object/apply:os.system ['touch owned']", "could not determine a constructor"),
        ("name: !!python/name:os.system ", "could not determine a constructor"),
        ("a: 1\na: 2", "is given twice"),
    ],
)
def test_yaml_bombs_and_tags_are_one_line(text: str, words: str) -> None:
    assert words in refusal(text)


def test_a_huge_job_file_is_refused_unread(tmp_path: Path) -> None:
    path = tmp_path / "job.yaml"
    with path.open("wb") as stream:
        stream.truncate(10**12)
    with pytest.raises(UserError, match=r"1000000000000 bytes; a job file has at most"):
        read_job(path)


@pytest.mark.parametrize(
    "name", ["$(touch owned)", "a;touch owned", "`touch owned`", "../a", "a/b", "-rf", "a b", "a\nb", "a" * 64, "ä", ""]
)
def test_names_that_a_shell_or_a_path_would_act_on_are_refused(name: str) -> None:
    assert "name: given" in refusal(yaml.safe_dump(JOB | {"name": name}))


@pytest.mark.parametrize(
    "factory", ["os.system('x'):f", "a;b:c", "a:b c", "a:__import__('os')", "a.b", "../m:f", "a:b\n"]
)
def test_a_factory_is_a_name_and_no_expression(factory: str) -> None:
    model = {"factory": factory, "weights": "/w.pt"}
    assert "model.factory: given" in refusal(yaml.safe_dump(JOB | {"model": model}))


@pytest.mark.parametrize(
    "factory",
    ["os:system", "subprocess:run", "builtins:exec", "runpy:run_path", "pip:main", "torch.hub:load", "os.path:join"],
)
def test_a_factory_that_is_a_command_line_is_refused(factory: str, tmp_path: Path) -> None:
    from components.core.models import load_torch_model

    source = ModelSource(factory=factory, kwargs={"command": f"touch {tmp_path}/owned"}, weights="/w.pt")
    with pytest.raises(UserError, match="makes no models"):
        load_torch_model(source, tmp_path)
    assert not list(tmp_path.iterdir())


def test_factories_can_be_limited_to_packages(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(FACTORIES, "my_models, torchvision.models")
    check_package("my_models.small:detector")
    check_package("torchvision.models.detection:fasterrcnn_resnet50_fpn")
    for module in ("backbone.factory", "family.build", "family.classifiers"):  # what a searching rung hands on
        check_package(f"components.{module}:build")
    for factory in ("torchvision.io:read_file", "my_models2:detector", "os:system", "components.core.files:open"):
        with pytest.raises(UserError, match="is not among HASTEN_FACTORIES"):
            check_package(factory)


def test_no_code_of_ours_starts_a_shell_or_unpickles_or_loads_unsafe_yaml() -> None:
    """Ruff's security rules over the sources, without the exceptions that a line may claim."""
    rules = "S102,S301,S302,S306,S307,S506,S602,S604,S605,S606,S609"
    command = [sys.executable, "-m", "ruff", "check", "--ignore-noqa", "--isolated", "--output-format=concise"]
    done = subprocess.run(
        [*command, f"--select={rules}", "components", "pipelines"], cwd=ROOT, capture_output=True, text=True
    )
    found = [line for line in done.stdout.splitlines() if re.search(r": S\d+ ", line)]
    allowed = {("components/core/job_file.py", "S506")}  # a SafeLoader of our own
    assert {(line.split(":")[0], line.split(": ")[1].split()[0]) for line in found} <= allowed, "\n".join(found)
