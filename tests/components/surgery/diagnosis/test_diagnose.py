"""Runtimes asked in a process of their own: verdicts, and what comes of a crash, a hang and hunger for memory."""

import importlib.util

import onnx
import pytest
from refused_graphs import FLOAT, IMAGE, REFUSED, nms, one

from components.core.contracts.job import Runtime
from components.surgery.diagnosis import diagnose as diagnose_module
from components.surgery.diagnosis.diagnose import diagnose
from components.surgery.diagnosis.verdict import Seen, Stage, Verdict

needs_rtx = pytest.mark.skipif(not importlib.util.find_spec("tensorrt_rtx"), reason="tensorrt_rtx is not installed")
GRAPHS = {name: model for _, name, model in REFUSED}
RTX = Runtime.TENSORRT_RTX


@pytest.fixture
def saved(tmp_path):
    def save(model):
        onnx.save(model, tmp_path / "model.onnx")
        return tmp_path / "model.onnx"

    return save


@needs_rtx
def test_a_model_that_is_fine_builds(saved):
    verdict = diagnose(saved(one("Relu", {"x": IMAGE}, {"y": FLOAT})), RTX)
    assert (verdict.parses, verdict.builds, verdict.stage, verdict.findings) == (True, True, Stage.OK, [])
    assert verdict.tool == "tensorrt_rtx"
    assert verdict.version == pytest.importorskip("tensorrt_rtx").__version__
    assert verdict.accepted
    assert verdict.brief() == "builds"
    assert verdict.seconds > 0
    assert Verdict.model_validate_json(verdict.model_dump_json()) == verdict


@needs_rtx
def test_without_a_build_only_the_parser_is_asked(saved):
    verdict = diagnose(saved(one("Relu", {"x": IMAGE}, {"y": FLOAT})), RTX, build=False)
    assert (verdict.parses, verdict.builds, verdict.stage) == (True, None, Stage.OK)
    assert verdict.brief() == "parses"
    verdict = diagnose(saved(nms()), RTX, build=False)
    assert (verdict.parses, verdict.builds, verdict.stage) == (True, None, Stage.BUILD)
    assert verdict.findings[0].seen is Seen.KNOWN
    verdict = diagnose(saved(nms()), RTX)
    assert (verdict.parses, verdict.builds, verdict.stage) == (True, False, Stage.BUILD)
    assert verdict.brief() == "parses, does not build (1 finding)"
    assert not verdict.accepted


@needs_rtx
@pytest.mark.parametrize("part", [0.0, 0.5])
def test_a_damaged_file_is_a_finding(saved, part):
    path = saved(nms())
    whole = path.read_bytes()
    path.write_bytes(whole[: int(part * len(whole))])
    verdict = diagnose(path, RTX)
    assert verdict.stage is Stage.PARSE
    assert len(verdict.findings) >= 1


@pytest.mark.parametrize("runtime", [RTX, Runtime.TENSORRT, Runtime.ONNXRUNTIME, Runtime.OPENVINO])
def test_what_nobody_can_read_is_no_crash(saved, runtime):
    path = saved(nms())
    path.write_bytes(path.read_bytes()[:-40])
    verdict = diagnose(path, runtime)
    assert verdict.stage is Stage.PARSE
    assert not any("crashed" in finding.rule for finding in verdict.findings)


@pytest.mark.parametrize("runtime", [Runtime.ONNXRUNTIME, Runtime.OPENVINO])
def test_runtimes_of_the_processor_are_asked_as_well(saved, runtime):
    fine = diagnose(saved(one("Relu", {"x": IMAGE}, {"y": FLOAT})), runtime)
    assert (fine.parses, fine.builds, fine.stage) == (True, True, Stage.OK)
    refused = diagnose(saved(GRAPHS["EfficientNMS_TRT"]), runtime)
    assert refused.stage is Stage.PARSE
    assert [(finding.node, finding.row) for finding in refused.findings] == [("it", 13)]


def test_tensorrt_is_judged_by_its_documentation_where_it_is_missing(saved, monkeypatch):
    real = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name, *rest: None if name == "tensorrt" else real(name, *rest)
    )
    verdict = diagnose(saved(GRAPHS["Det"]), Runtime.TENSORRT)
    assert (verdict.parses, verdict.builds, verdict.stage) == (False, None, Stage.PARSE)
    assert (verdict.tool, verdict.version) == ("onnx-tensorrt docs/operators.md", "10.15")
    assert verdict.findings[0].seen is Seen.DOCUMENTED
    assert verdict.brief() == "documented as refused (1 finding)"
    fine = diagnose(saved(nms()), Runtime.TENSORRT)
    assert (fine.parses, fine.builds, fine.stage) == (None, None, Stage.OK)
    assert fine.brief() == "no objection"
    assert "not installed here" in fine.note


STAND_IN = """
import tensorrt_rtx as _rtx
from tensorrt_rtx import *  # noqa: F403

__version__ = _rtx.__version__
"""


@needs_rtx
def test_tensorrt_itself_is_asked_where_it_is_installed(saved, tmp_path, monkeypatch):
    """The real `tensorrt` needs a GPU; its API is that of tensorrt_rtx, which stands in under its name."""
    folder = tmp_path / "site" / "tensorrt"
    folder.mkdir(parents=True)
    (folder / "__init__.py").write_text(STAND_IN)
    monkeypatch.setenv("PYTHONPATH", str(folder.parent))
    monkeypatch.syspath_prepend(str(folder.parent))
    verdict = diagnose(saved(GRAPHS["Det"]), Runtime.TENSORRT)
    assert verdict.tool == "tensorrt"
    assert verdict.parses is False
    assert "checkDet" in verdict.findings[0].source


def test_a_runtime_that_is_not_here_has_no_say(saved, monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *rest: None)
    verdict = diagnose(saved(nms()), RTX)
    assert verdict.accepted
    assert (verdict.parses, verdict.builds) == (None, None)
    assert verdict.note == "not asked: the Python module tensorrt_rtx is not installed here"


def test_a_refusal_without_a_reason_is_still_one(saved, monkeypatch):
    answer = {"version": "9.9", "parses": False, "builds": None, "failures": [], "note": ""}
    monkeypatch.setattr(diagnose_module, "run_apart", lambda *arguments: answer)
    verdict = diagnose(saved(nms()), Runtime.ONNXRUNTIME)
    assert not verdict.accepted
    assert verdict.findings[0].rule == "the runtime refuses the model and gives no reason"


WORKER = """
import json, os, signal, sys, time
from pathlib import Path

request = json.loads(Path(sys.argv[1]).read_text())
how = Path(request["onnx"]).stem
if how.endswith("parsing"):
    Path(request["trace"]).write_text("backbone/conv1 [Conv]")
if how.endswith("building"):
    Path(sys.argv[2]).write_text(json.dumps({"version": "9.9", "parses": True, "builds": None, "failures": []}))
if how.endswith("searching"):
    failure = {"node": "it", "operator": "NonZero", "words": "not found"}
    Path(sys.argv[2]).write_text(json.dumps({"version": "9.9", "parses": False, "failures": [failure]}))
print("last words of the runtime", file=sys.stderr, flush=True)
if how.startswith("crash"):
    os.kill(os.getpid(), signal.SIGSEGV)
if how.startswith("hang"):
    time.sleep(60)
eaten = []
while True:
    eaten.append(b"x" * 2**24)
    time.sleep(0.01)
"""


@pytest.mark.parametrize(
    ("how", "stage", "node", "words", "advice"),
    [
        (
            "crash-parsing",
            Stage.PARSE,
            "backbone/conv1",
            "crashed with SIGSEGV; its last words: last words of the",
            "report it",
        ),
        ("crash-building", Stage.BUILD, "whole model", "crashed with SIGSEGV", "report it"),
        ("hang-parsing", Stage.PARSE, "backbone/conv1", "longer than 1.5 s", "--time-limit"),
        ("hang-building", Stage.BUILD, "whole model", "longer than 1.5 s", "--time-limit"),
        ("eat-building", Stage.BUILD, "whole model", "more than 200 MiB of memory", "--memory-limit"),
    ],
)
def test_a_death_of_the_runtime_is_a_finding(tmp_path, monkeypatch, how, stage, node, words, advice):
    (tmp_path / "dying_runtime.py").write_text(WORKER)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.setattr(diagnose_module, "WORKER", "dying_runtime")
    limit = 30.0 if how.startswith("eat") else 1.5
    verdict = diagnose(tmp_path / f"{how}.onnx", RTX, time_limit=limit, memory_limit=200 * 2**20)
    (found,) = verdict.findings
    assert (found.stage, found.node, verdict.stage) == (stage, node, stage)
    assert verdict.parses is (True if stage is Stage.BUILD else None)
    assert verdict.builds is None
    assert words in found.words
    assert advice in found.way_out
    assert not verdict.accepted


def test_what_was_found_before_a_crash_is_kept(tmp_path, monkeypatch):
    (tmp_path / "dying_runtime.py").write_text(WORKER)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.setattr(diagnose_module, "WORKER", "dying_runtime")
    verdict = diagnose(tmp_path / "crash-searching.onnx", RTX)
    assert [finding.row for finding in verdict.findings] == [15, None]
    assert verdict.parses is False
    assert verdict.version == "9.9"


@needs_rtx
def test_the_parser_leaves_the_name_of_the_node_it_is_at(saved, tmp_path):
    from components.core.tensorrt_tools.session import Session

    Session("tensorrt_rtx", tmp_path / "trace.txt").parse(saved(GRAPHS["NonZero"]))
    assert (tmp_path / "trace.txt").read_text() == "it [NonZero]"


def test_a_limit_comes_before_what_was_found_by_then(tmp_path, monkeypatch):
    (tmp_path / "dying_runtime.py").write_text(WORKER)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.setattr(diagnose_module, "WORKER", "dying_runtime")
    verdict = diagnose(tmp_path / "hang-searching.onnx", RTX, time_limit=1.5)
    assert [finding.row for finding in verdict.findings] == [None, 15]
    assert "--time-limit" in verdict.findings[0].way_out
    assert verdict.parses is False
