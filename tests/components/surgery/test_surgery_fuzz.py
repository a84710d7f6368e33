"""Damaged ONNX files never crash or hang the step: each ends in a result, one clear line, or a reported finding.

500 cases in every run; 10,000 with ``-m nightly``. A case is a number, which ``python fuzz_server.py N N+1 FOLDER``
repeats.
"""

import json
import os
import subprocess
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from fuzz_mutations import damaged
from fuzz_seeds import SEEDS, content
from onnx import helper
from surgery_graphs import FLOAT, INT64, make_model

from components.core.contracts.job import Runtime
from components.core.onnx_files import load_onnx
from components.surgery.operate import operate
from components.surgery.surgery import Outcome

HERE = Path(__file__).parent
ROOT = HERE.parents[2]
SERVERS = 2


def run_cases(count: int, folder: Path) -> list[dict[str, object]]:
    """What became of the cases 0 to `count`, from two servers at a time."""
    environment = os.environ | {"PYTHONPATH": f"{ROOT}{os.pathsep}{HERE}", "OMP_NUM_THREADS": "1"}
    servers = []
    for number in range(SERVERS):
        first, last = count * number // SERVERS, count * (number + 1) // SERVERS
        command = [sys.executable, HERE / "fuzz_server.py", str(first), str(last), folder / str(number)]
        log = (folder / f"{number}.log").open("w")
        servers.append(
            (subprocess.Popen(command, env=environment, cwd=ROOT, stdout=log, stderr=subprocess.STDOUT), log)
        )
    rows = []
    for number, (server, log) in enumerate(servers):
        server.wait()
        log.close()
        lines = (folder / f"{number}.log").read_text().splitlines()
        assert server.returncode == 0, "the parent died: " + "\n".join(lines[-20:])
        rows += [json.loads(line) for line in lines if line.startswith("{")]
    return rows


def judge(rows: list[dict[str, object]], count: int) -> None:
    assert [row["case"] for row in rows] == list(range(count))
    wrong = [row for row in rows if row["kind"] not in ("result", "refused", "finding")]
    assert not wrong, json.dumps(wrong[:5], indent=2)
    kinds = Counter(row["kind"] for row in rows)
    # Enough of both, or the damage is too coarse or too fine to say anything.
    assert min(kinds["result"], kinds["refused"]) > count / 5, kinds
    assert kinds["finding"] < count / 50, kinds


def test_500_damaged_files(tmp_path):
    judge(run_cases(500, tmp_path), 500)


@pytest.mark.nightly
def test_10000_damaged_files(tmp_path):
    judge(run_cases(10_000, tmp_path), 10_000)


def test_the_seeds_are_sound_and_the_cases_are_not(tmp_path):
    for make in SEEDS:
        model, data = content(make.__name__)
        (tmp_path / "model.onnx").write_bytes(model)
        (tmp_path / "model.data").write_bytes(data)
        _, report = operate(load_onnx(tmp_path / "model.onnx"), Runtime.TENSORRT_RTX)
        assert not [record for record in report.records if "failed on this graph" in record.why]
    assert damaged(17) == damaged(17)
    sound = {content(make.__name__)[0] for make in SEEDS}
    assert sum(damaged(number).model not in sound for number in range(100)) > 90


def test_a_topk_of_more_than_memory_holds_is_refused_at_once():
    nodes = [helper.make_node("TopK", ["x", "k"], ["v", "i"], name="top")]
    model = make_model(nodes, {"x": (FLOAT, ["n"])}, {"v": (FLOAT, None), "i": (INT64, None)}, {"k": np.array([2**62])})
    _, report = operate(model, Runtime.TENSORRT_RTX)
    (record,) = [record for record in report.records if record.row == 16]
    assert record.outcome is Outcome.REFUSED
    assert f"K = {2**62}" in record.why


def test_a_split_into_more_parts_than_memory_holds_is_refused_at_once():
    nodes = [
        helper.make_node("SplitToSequence", ["x"], ["s"]),
        helper.make_node("ConcatFromSequence", ["s"], ["y"], axis=0),
    ]
    model = make_model(nodes, {"x": (FLOAT, [2**31 - 1])}, {"y": (FLOAT, None)})
    _, report = operate(model, Runtime.TENSORRT_RTX)
    assert {(record.row, record.outcome) for record in report.records} == {(19, Outcome.REFUSED)}
    assert "more than 4096" in report.records[0].why


@pytest.mark.parametrize("kind", ["a sequence", "no type", "an impossible size"])
def test_inputs_that_no_test_can_feed_leave_the_graph_unproven_and_not_the_tool_dead(kind):
    nodes = [helper.make_node("Constant", [], ["c"], value_float=2.0), helper.make_node("Mul", ["x", "c"], ["y"])]
    model = make_model(nodes, {"x": (FLOAT, [2])}, {"y": (FLOAT, None)})
    if kind == "a sequence":
        model.graph.input[0].CopyFrom(helper.make_tensor_sequence_value_info("x", FLOAT, [2]))
    elif kind == "no type":
        model.graph.input[0].type.tensor_type.elem_type = 0
    else:  # onnx's own shape inference would take a minute for every 2**28 of it
        model.graph.input[0].type.tensor_type.shape.dim[0].dim_value = 2**62
    _, report = operate(model, Runtime.TENSORRT_RTX)
    assert [record.outcome for record in report.records] == [Outcome.DONE]
    assert "does not run in ONNX Runtime" in report.records[0].note
    assert report.end_to_end == {}


def test_minus_one_is_an_open_dimension():
    nodes = [helper.make_node("Constant", [], ["c"], value_float=2.0), helper.make_node("Mul", ["x", "c"], ["y"])]
    model = make_model(nodes, {"x": (FLOAT, [-1])}, {"y": (FLOAT, None)})
    assert model.graph.input[0].type.tensor_type.shape.dim[0].dim_value == -1
    _, report = operate(model, Runtime.TENSORRT_RTX)
    assert [record.max_error for record in report.records] == [0.0]
