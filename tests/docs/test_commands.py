"""Every command in the documentation: run where a laptop can, held against the real command line where it cannot."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import typer
import yaml
from blocks import KINDS, PAGES, ROOT, Block, blocks, commands

from components.core.job_file import parse_job
from pipelines.cli.app import app
from pipelines.cli.main import COMMANDS
from pipelines.fleet.contract import FleetFile, merged

assert COMMANDS
ALL = [block for page in PAGES for block in blocks(page)]
LADDERS = re.compile(r"^hasten (run|fleet (?!.*--plan))", re.MULTILINE)


def of_kind(*kinds: str) -> list[Block]:
    return [block for block in ALL if block.info in kinds]


def name(block: Block) -> str:
    return f"{block.page}:{block.line}"


def test_every_block_says_how_it_is_tested():
    assert len(PAGES) >= 7
    wrong = [f"{name(block)}: {block.info!r}" for block in ALL if block.info not in KINDS]
    assert not wrong, wrong
    # A block without a language holds a picture of files, and no command.
    hidden = [
        name(block) for block in of_kind("") if re.search(r"^(\$ |hasten |kubectl |make |pip )", block.text, re.M)
    ]
    assert not hidden, hidden


def run_pages(folder: Path, pages: list[str]) -> None:
    """Runs the blocks of these pages in order, in a folder that has the job and fleet that they speak of."""
    environment = {
        **os.environ,
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        "PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "tests")]),
        "HASTEN_CACHE": str(folder / "cache"),
        "OMP_NUM_THREADS": "1",
    }
    for block in of_kind("sh run", "python run"):
        if block.page not in pages:
            continue
        if block.info == "python run":
            (folder / "block.py").write_text(block.text)
            command = [sys.executable, "block.py"]
        else:
            command = ["bash", "-e", "-c", block.text]
        done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=900)
        assert done.returncode == 0, f"{name(block)}\n{block.text}\n{done.stdout[-2000:]}\n{done.stderr[-2000:]}"


@pytest.fixture
def desk(tmp_path, monkeypatch):
    """A folder with `job.yaml` and its files, and `fleet.yaml` with two jobs: what a reader of the pages has."""
    monkeypatch.syspath_prepend(str(ROOT / "tests" / "pipelines"))
    from tiny_job import make_tiny_job

    fields = yaml.safe_load(make_tiny_job(tmp_path).read_text())
    shared = {key: fields[key] for key in ("data", "target", "goal")}
    (tmp_path / "jobs").mkdir()
    for each in ("a", "b"):
        model = fields["model"] | {"weights": "../weights.pt"}
        (tmp_path / "jobs" / f"{each}.yaml").write_text(yaml.safe_dump({"name": each, "model": model}))
    (tmp_path / "fleet.yaml").write_text(
        yaml.safe_dump({"name": "detectors", "jobs": ["jobs/*.yaml"], "defaults": shared})
    )
    return tmp_path


QUICK = [page.name for page in PAGES if not any(LADDERS.search(b.text) for b in blocks(page) if b.info == "sh run")]


@pytest.mark.parametrize("page", QUICK)
def test_what_can_run_on_a_laptop_is_run(desk, page):
    run_pages(desk, [page])


@pytest.mark.slow
@pytest.mark.parametrize("page", [page.name for page in PAGES if page.name not in QUICK])
def test_pages_with_a_whole_ladder_are_run(desk, page):
    run_pages(desk, [page])


@pytest.mark.parametrize("block", of_kind("sh run", "sh check"), ids=name)
def test_every_command_line_is_one_of_hastens(block):
    for words in commands(block):
        problem = PROGRAMS.get(words[0], unknown)(words)
        assert not problem, f"{name(block)}: {' '.join(words)}: {problem}"


def hasten(words: list[str]) -> str:
    """Why the real command line would not take these words."""
    arguments = words[1 : words.index(">")] if ">" in words else words[1:]
    group = typer.main.get_command(app)
    if arguments == ["--version"]:
        return ""
    command = group.commands.get(arguments[0])
    if command is None:
        return f"no such command; there are {', '.join(group.commands)}"
    try:
        # Files need not exist here: only the form counts.
        command.make_context(arguments[0], list(arguments[1:]), resilient_parsing=False)
    except Exception as error:
        return str(error.format_message() if hasattr(error, "format_message") else error)
    return ""


def make(words: list[str]) -> str:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    return ", ".join(word for word in words[1:] if word not in targets)


def script(words: list[str]) -> str:
    path = words[1]
    return "" if (ROOT / path).is_file() else f"no {path}"


def kubectl(words: list[str]) -> str:
    if "-k" in words:
        folder = words[words.index("-k") + 1]
        return "" if (ROOT / folder / "kustomization.yaml").is_file() else f"no {folder}"
    return "" if words[1:] == ["apply", "-f", "-"] else "kubectl is only used to apply"


def pip(words: list[str]) -> str:
    extras = re.findall(r"'?\.\[([\w-]+)\]", " ".join(words))
    declared = (ROOT / "pyproject.toml").read_text()
    return ", ".join(extra for extra in extras if not re.search(rf"^{extra} = \[", declared, re.MULTILINE))


def tar(words: list[str]) -> str:
    return ", ".join(word for word in words[3:] if word != "wheels" and not (ROOT / word).exists())


def known(words: list[str]) -> str:
    return ""


def unknown(words: list[str]) -> str:
    return f"{words[0]} is no program that this test knows; known: {', '.join(PROGRAMS)}"


PROGRAMS = {
    "hasten": hasten, "make": make, "sh": script, "kubectl": kubectl, "pip": pip, "python": pip, "tar": tar,
    "aws": known, "skopeo": known, "grep": known,
}  # fmt: skip


@pytest.mark.parametrize("line", ["hasten runn job.yaml", "hasten run job.yaml --mod x", "hasten submit", "nosuch x"])
def test_a_wrong_command_line_is_found(line):
    words = line.split()
    assert PROGRAMS.get(words[0], unknown)(words)


def test_jobs_in_the_pages_are_jobs(tmp_path):
    found = of_kind("yaml job")
    assert found
    for block in found:
        parse_job(block.text, name(block), tmp_path)


def test_fleets_in_the_pages_are_fleets():
    found = of_kind("yaml fleet")
    assert found
    for block in found:
        fleet = FleetFile.model_validate(yaml.safe_load(block.text))
        own = {"name": "a", "model": {"onnx": "/m.onnx"}}
        text = yaml.safe_dump(merged(fleet.defaults, own))
        parse_job(text, name(block), Path("/"))
