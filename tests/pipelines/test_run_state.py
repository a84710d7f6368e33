"""The live view's knowledge, from recorded event streams."""

import io
from typing import Any

import pytest
from rich.console import Console

from pipelines.cli.live import LiveView
from pipelines.cli.plain import PlainView, duration, row_line
from pipelines.local.state import RunState, State, planned


def event(time: float, step: str, state: str, **fields: Any) -> dict[str, Any]:
    return {"time": time, "step": step, "state": state, "message": "", **fields}


ROW = {
    "id": "int8-openvino",
    "status": "ok",
    "reason": "",
    "latency_ms": {"p50": 21.5, "p90": 22.0, "p99": 25.0},
    "speedup": {"ratio": 2.5, "ci_low": 2.4, "ci_high": 2.6},
    "accuracy": {"metric": "map50", "value": 0.41, "drop": 0.004},
    "size_bytes": 4_200_000,
    "meets_goal": True,
}
BOARD = {
    "goal": {"metric": "map50"},
    "baseline": "eager",
    "winner": "int8-openvino",
    "candidates": [
        ROW,
        {**ROW, "id": "eager", "latency_ms": {"p50": 54.0}, "meets_goal": False},
        {
            "id": "int8-tensorrt-rtx",
            "status": "skipped",
            "reason": "engine built, not timed: no GPU",
            "latency_ms": None,
        },
    ],
}
STREAM = [
    event(0.1, "prepare", "started"),
    event(0.2, "prepare", "done", seconds=0.1),
    event(0.3, "fetch", "cached"),
    event(0.4, "export", "cached"),
    event(0.5, "benchmark", "started"),
    event(1.0, "benchmark", "progress", message="timing eager", done=1, total=10),
    event(3.0, "benchmark", "progress", message="timing eager", done=3, total=10),
    event(9.0, "benchmark", "board", board={**BOARD, "winner": None, "candidates": BOARD["candidates"][1:2]}),
    event(9.1, "benchmark", "done", seconds=8.6),
    event(9.2, "decide", "started", rung="int8"),
    event(9.3, "decide", "done", rung="int8", seconds=0.05),
    event(9.4, "export", "cached"),
    event(9.5, "surgery", "started"),
    event(11.5, "surgery", "done", seconds=2.0),
    event(11.6, "int8", "started", rung="int8"),
    event(20.6, "int8", "done", rung="int8", seconds=9.0),
    event(20.7, "engine", "started"),
    event(25.7, "engine", "done", seconds=5.0),
    event(25.8, "benchmark", "started", rung="int8"),
    event(30.0, "benchmark", "board", board=BOARD),
    event(30.1, "benchmark", "done", seconds=4.3),
    event(30.2, "decide", "started", rung="fp16"),
    event(30.3, "decide", "done", rung="fp16", seconds=0.05),
    event(30.4, "leaderboard", "started"),
    event(30.5, "leaderboard", "done", seconds=0.1),
    event(30.6, "report", "started"),
    event(32.6, "report", "done", seconds=2.0),
    event(32.7, "destination", "started"),
    event(32.8, "destination", "done", seconds=0.1),
    event(32.9, "publish", "started"),
    event(33.9, "publish", "done", seconds=1.0),
    event(34.0, "", "finished"),
]


def played(stream: list[dict[str, Any]], publishes: bool = True) -> RunState:
    state = RunState(planned(["int8", "fp16"], publishes), started=0.0)
    for each in stream:
        state.apply(each)
    return state


def states(state: RunState) -> dict[str, str]:
    return {f"{step.rung}/{step.step}": str(step.state) for step in state.steps}


def test_a_whole_run():
    state = played(STREAM)
    assert states(state) == {
        "/prepare": "done",
        "/fetch": "cached",
        "/export": "cached",
        "/benchmark": "done",
        "int8/decide": "done",
        "int8/export": "cached",
        "int8/surgery": "done",
        "int8/int8": "done",
        "int8/engine": "done",
        "int8/benchmark": "done",
        "fp16/decide": "done",
        "fp16/export": "skipped",
        "fp16/surgery": "skipped",
        "fp16/fp16": "skipped",
        "fp16/engine": "skipped",
        "fp16/benchmark": "skipped",
        "/leaderboard": "done",
        "/report": "done",
        "/publish": "done",
    }
    assert state.finished
    assert state.step_seconds == pytest.approx(0.1 + 8.6 + 0.1 + 2.0 + 9.0 + 5.0 + 4.3 + 0.1 + 2.0 + 1.0)
    assert state.board == BOARD


def test_while_it_runs():
    state = played(STREAM[:7])
    benchmark = next(step for step in state.steps if step.step == "benchmark")
    assert benchmark.state is State.RUNNING
    assert benchmark.share() == pytest.approx(0.3)
    # two of ten in two seconds: seven more take seven
    assert benchmark.eta(3.0) == pytest.approx(7.0)
    assert benchmark.elapsed(3.5) == pytest.approx(3.0)
    assert states(state)["int8/benchmark"] == "waiting"


def test_a_failure_keeps_its_kind_and_words():
    state = played([*STREAM[:5], event(3, "benchmark", "failed", kind="user", message="no images", seconds=2.5)])
    assert state.failure is not None
    assert (state.failure.step, state.failure.kind, state.failure.message) == ("benchmark", "user", "no images")
    assert states(state)["/benchmark"] == "failed"


def test_a_rung_that_the_job_leaves_out_changes_nothing():
    state = RunState(planned(["fp16"], False), started=0.0)
    for each in [*STREAM[:9], *STREAM[9:11]]:
        state.apply(each)
    assert states(state)["fp16/decide"] == "waiting"
    state.apply(event(31, "decide", "started", rung="fp16"))
    assert states(state)["fp16/decide"] == "running"


@pytest.mark.parametrize("broken", [{}, {"state": "done", "step": "nothing"}, {"state": "progress", "step": "fetch"}])
def test_strange_events_are_ignored(broken):
    state = played([broken])
    assert set(states(state).values()) == {"waiting"}


def test_log_lines():
    stream = io.StringIO()
    view, state = PlainView(stream), RunState(planned(["int8", "fp16"], True), started=0.0)
    for each in STREAM:
        state.apply(each)
        view.update(state, each)
    lines = stream.getvalue().splitlines()
    assert "[    0.3 s] fetch: cached" in lines
    assert "[    9.0 s] leaderboard: eager: p50 54.0 ms, 2.50x, map50 0.410" in lines
    assert "[   11.5 s] int8 / surgery: done in 2.0 s" in lines
    assert "[   30.4 s] fp16 / surgery: skipped, not needed" in lines
    assert any(
        line.endswith("leaderboard: int8-tensorrt-rtx: skipped: engine built, not timed: no GPU") for line in lines
    )
    assert any("benchmark: timing eager 10%" in line for line in lines)
    assert len([line for line in lines if "eager: p50" in line]) == 1
    assert "\x1b" not in stream.getvalue()


def rendered(count: int, width: int = 120) -> str:
    console = Console(file=io.StringIO(), force_terminal=True, width=width, color_system=None)
    view = LiveView(console, "hasten trees")
    state = played(STREAM[:count])
    console.print(view.picture(state, now=STREAM[count - 1]["time"] + 1))
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def test_the_picture_of_a_running_step():
    lines = rendered(7).splitlines()
    benchmark = next(line for line in lines if "benchmark" in line and "running" in line)
    assert "30%" in benchmark
    assert "timing eager" in benchmark
    assert "left" in benchmark
    assert any("rung int8" in line for line in lines)


def test_the_picture_of_the_end():
    text = rendered(len(STREAM))
    lines = text.splitlines()
    assert any("fetch" in line and "cached" in line for line in lines)
    assert any("rung fp16" in line and "not needed" in line for line in lines)
    assert any("★" in line and "int8-openvino" in line and "2.50x [2.40, 2.60]" in line for line in lines)
    assert any("int8-tensorrt-rtx" in line and "no GPU" in line for line in lines)
    order = [line for line in lines if "ms" in line and ("eager" in line or "int8-openvino" in line)]
    assert "int8-openvino" in order[0]


@pytest.mark.parametrize("width", [60, 80, 200])
def test_every_step_is_one_line_and_closed_rungs_are_one(width):
    lines = [line for line in rendered(7, width).splitlines() if line.strip()]
    names = ["hasten trees", "prepare", "fetch", "export", "benchmark", "rung int8", "rung fp16"]
    assert len(lines) == len([*names, "leaderboard", "report", "publish"])
    for line, name in zip(lines, names, strict=False):
        assert name in line


@pytest.mark.parametrize("width", [40, 80, 200])
def test_the_picture_fits_any_width(width):
    assert all(len(line) <= width for line in rendered(len(STREAM), width).splitlines())


def test_words():
    assert duration(3.21) == "3.2 s"
    assert duration(245) == "4 min 05 s"
    assert row_line(ROW).startswith("int8-openvino: p50 21.5 ms, 2.50x, map50 0.410")
