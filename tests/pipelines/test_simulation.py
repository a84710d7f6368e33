"""The simulated cluster: conservation laws, known cases, determinism, and times that come from real records."""

import json
from pathlib import Path

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from components.core.errors import UserError
from pipelines.cli import errors
from pipelines.cli.app import app
from pipelines.cli.main import COMMANDS
from pipelines.simulation.cluster import Cluster, Outcome, simulate
from pipelines.simulation.measured import ON_GPU, MeasuredRun, Work, read_runs
from pipelines.simulation.summary import longest_queue, summarize

assert COMMANDS
LADDER = Path(__file__).parent.parent.parent / "manifests" / "pipelines" / "ladder.yaml"


def climb(rung: str, seconds: float) -> tuple[Work, ...]:
    return tuple(Work(rung, step, seconds) for step in ("surgery", rung, "engine", "benchmark"))


RUN = MeasuredRun(
    name="trees",
    before=(Work("", "fetch", 5.0), Work("", "export", 20.0), Work("", "benchmark", 60.0)),
    climbs={"int8": climb("int8", 100.0), "fp16": climb("fp16", 80.0), "amp": (Work("amp", "amp", 4000.0),)},
    after=(Work("", "report", 3.0),),
    met_at="fp16",
)
CLUSTERS = st.builds(
    Cluster,
    gpus=st.integers(1, 6),
    cpu_pods=st.integers(1, 20),
    parallelism=st.integers(1, 30),
    pod_start=st.sampled_from([0.0, 1.0, 30.0]),
    preempt_every=st.sampled_from([None, 300.0, 3600.0]),
    checkpoint_every=st.sampled_from([60.0, 600.0]),
    gpu_speed=st.sampled_from([0.5, 1.0, 8.0]),
)


def busy_at_most(outcome: Outcome, on_gpu: bool) -> int:
    """The most places of a kind that were taken at one time."""
    pods = [pod for pod in outcome.pods if pod.on_gpu is on_gpu]
    changes = sorted([(pod.ended, -1) for pod in pods] + [(pod.began, 1) for pod in pods])
    most = taken = 0
    for _, change in changes:
        taken += change
        most = max(most, taken)
    return most


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(cluster=CLUSTERS, models=st.integers(1, 25), exhaustive=st.booleans(), seed=st.integers(0, 99))
def test_nothing_is_lost_and_nothing_appears(cluster, models, exhaustive, seed):
    outcome = simulate([RUN], models, cluster, exhaustive=exhaustive, seed=seed)
    summary = summarize(outcome, "")
    for pod in outcome.pods:
        assert pod.asked <= pod.began <= pod.ended <= outcome.makespan + 1e-6
        assert pod.ended - pod.began == pytest.approx(pod.start + pod.work + pod.lost)
        assert pod.preempted or pod.lost == 0
        assert not pod.preempted or pod.on_gpu
    assert busy_at_most(outcome, on_gpu=True) <= cluster.gpus
    assert busy_at_most(outcome, on_gpu=False) <= cluster.cpu_pods
    assert 0 <= summary.utilization <= 1 + 1e-9
    assert summary.gpu_hours == pytest.approx(summary.gpu_work_h + summary.gpu_start_h + summary.gpu_lost_h)
    assert sum(queue.wait_h for queue in summary.queues) * 3600 == pytest.approx(
        sum(pod.waited for pod in outcome.pods)
    )
    assert summary.met + summary.failed <= models
    # What a model that came to its end was worked on is what its run took, to the second.
    expected = sum(work.seconds / (cluster.gpu_speed if work.on_gpu else 1) for work in RUN.work(exhaustive, "fp16"))
    ended = {pod.model for pod in outcome.pods if pod.step == "report"}
    assert len(ended) == models - outcome.failed == summary.met
    for model in ended:
        assert sum(pod.work for pod in outcome.pods if pod.model == model) == pytest.approx(expected)
    assert outcome.failed == 0 or cluster.preempt_every is not None
    # No schedule is shorter than its longest chain, or than the GPUs' work shared out evenly.
    assert outcome.makespan + 1e-6 >= (expected if ended else 0)
    assert outcome.makespan + 1e-6 >= sum(pod.ended - pod.began for pod in outcome.pods if pod.on_gpu) / cluster.gpus


def test_one_model_on_an_empty_cluster_takes_its_steps_one_after_the_other():
    outcome = simulate([RUN], 1, Cluster(gpus=1, pod_start=0.0), exhaustive=False)
    assert outcome.makespan == pytest.approx(5 + 20 + 60 + 4 * 100 + 4 * 80 + 3)
    assert [pod.waited for pod in outcome.pods] == [0.0] * len(outcome.pods)
    assert summarize(outcome, "").gpu_work_h * 3600 == pytest.approx(60 + 200 + 160)


def test_one_gpu_serves_one_after_the_other():
    run = MeasuredRun("r", (Work("", "benchmark", 10.0),), {"int8": climb("int8", 0.0)}, (), None)
    outcome = simulate([run], 5, Cluster(gpus=1, pod_start=0.0), exhaustive=True)
    waits = sorted(pod.waited for pod in outcome.pods if not pod.rung)
    assert waits == [0, 10, 20, 30, 40]
    assert longest_queue([pod for pod in outcome.pods if not pod.rung]) == 4


def test_stopping_early_never_costs_more_and_the_difference_is_the_rungs_that_are_left_out():
    cluster = Cluster(gpus=4, pod_start=0.0)
    stop, full = (summarize(simulate([RUN], 50, cluster, exhaustive=each), "") for each in (False, True))
    assert full.gpu_work_h - stop.gpu_work_h == pytest.approx(50 * 4000 / 3600)
    assert stop.makespan_h < full.makespan_h
    never = MeasuredRun("r", RUN.before, RUN.climbs, RUN.after, None)
    assert simulate([never], 5, cluster, exhaustive=False).pods == simulate([never], 5, cluster, exhaustive=True).pods


def test_more_gpus_never_wait_longer_on_average():
    means = []
    for gpus in (1, 2, 4, 8, 16):
        outcomes = [simulate([RUN], 40, Cluster(gpus, preempt_every=3600.0), exhaustive=True, seed=s) for s in range(5)]
        means.append(sum(summarize(outcome, "").mean_gpu_wait_s for outcome in outcomes) / len(outcomes))
    assert means == sorted(means, reverse=True)
    assert means[0] > 10 * means[-1]


def test_preemption_costs_time_and_checkpoints_save_it():
    def lost(**changes: float) -> float:
        cluster = Cluster(gpus=8, **changes)
        return summarize(simulate([RUN], 60, cluster, exhaustive=True, seed=1), "").gpu_lost_h

    assert lost() == 0
    assert lost(preempt_every=20_000.0) > 0
    assert lost(preempt_every=20_000.0, checkpoint_every=60.0) < lost(preempt_every=20_000.0, checkpoint_every=3600.0)


def test_a_step_that_is_taken_away_too_often_fails_its_model_and_no_other():
    outcome = simulate([RUN], 30, Cluster(gpus=8, preempt_every=100.0), exhaustive=False, seed=2)
    assert outcome.failed > 0
    assert outcome.met + outcome.failed == 30
    tries = [pod for pod in outcome.pods if pod.model == 0 and pod.step == "benchmark" and not pod.rung]
    assert len(tries) <= 2  # the profile's one retry


def test_the_seed_decides_everything():
    first, again, other = (
        simulate([RUN], 20, Cluster(gpus=2, preempt_every=2000.0), exhaustive=True, seed=seed) for seed in (1, 1, 2)
    )
    assert first == again
    assert first.pods != other.pods


def test_shares_say_how_many_meet_their_goal_at_each_rung():
    outcome = simulate(
        [RUN], 1000, Cluster(gpus=64, parallelism=1000), exhaustive=False, shares={"int8": 0.5, "fp16": 0.2}
    )
    climbed = {rung: len({pod.model for pod in outcome.pods if pod.rung == rung}) for rung in RUN.climbs}
    assert outcome.met == pytest.approx(700, abs=50)
    assert climbed["int8"] == 1000
    assert climbed["fp16"] == pytest.approx(500, abs=50)
    assert climbed["amp"] == 1000 - outcome.met


def test_the_steps_on_gpus_are_those_of_the_compiled_pipeline():
    spec, _ = yaml.safe_load_all(LADDER.read_text())
    placed = {
        name.removeprefix("exec-").split("-")[0]
        for name, executor in spec["deploymentSpec"]["executors"].items()
        if executor["container"].get("resources", {}).get("accelerator")
    }
    assert placed == ON_GPU


def write_run(folder: Path, **changes: object) -> Path:
    steps = [("", "fetch", "done", 1.0), ("", "benchmark", "done", 30.0), ("int8", "decide", "done", 0.0)]
    steps += [("int8", "surgery", "done", 4.0), ("int8", "benchmark", "done", 40.0), ("fp16", "decide", "done", 0.0)]
    steps += [("fp16", "surgery", "cached", 0.0), ("fp16", "benchmark", "done", 20.0), ("amp", "decide", "done", 0.0)]
    steps += [("amp", "amp", "skipped", 0.0), ("", "report", "done", 2.0)]
    record = {"stage": "finished", "job": "trees"} | changes
    record.setdefault("steps", [dict(zip(("rung", "step", "state", "seconds"), step, strict=True)) for step in steps])
    row = {"techniques": [], "runtime": "onnxruntime", "status": "ok"}
    board = {
        "job": "trees",
        "goal": {"max_size": "1 MB", "max_accuracy_drop": 0.1},
        "baseline": "eager",
        "candidates": [
            row | {"id": "eager", "rung": "baseline", "reference": True, "meets_goal": True},
            row | {"id": "a", "rung": "int8"},
            row | {"id": "b", "rung": "fp16", "meets_goal": True},
        ],
    }
    folder.mkdir(exist_ok=True)
    (folder / "run.json").write_text(json.dumps(record))
    (folder / "leaderboard.json").write_text(json.dumps(board))
    return folder / "run.json"


def test_a_record_becomes_what_a_model_asks_for(tmp_path):
    (run,) = read_runs([write_run(tmp_path)])
    assert run.met_at == "fp16"
    assert list(run.climbs) == ["int8", "fp16"]
    assert [(work.step, work.seconds) for work in run.climbs["fp16"]] == [("decide", 0.0), ("benchmark", 20.0)]
    assert [work.step for work in run.before] == ["fetch", "benchmark"]
    assert [work.step for work in run.after] == ["report"]
    assert sum(work.seconds for work in run.work(exhaustive=True, met_at="fp16")) == 97
    assert sum(work.seconds for work in run.work(exhaustive=False, met_at="int8")) == 77
    assert read_runs([tmp_path]) == [run]


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"stage": "stopped"}, "the run is stopped, not finished"),
        ({"steps": [{"rung": "", "step": "export", "state": "cached", "seconds": 0}]}, "export came from the cache"),
        ({"steps": "many"}, "is none of hasten's"),
    ],
)
def test_records_that_say_too_little_are_refused(tmp_path, changes, words):
    with pytest.raises(UserError, match=words):
        read_runs([write_run(tmp_path, **changes)])


@pytest.fixture
def hasten(capsys, monkeypatch):
    def call(*arguments):
        monkeypatch.setattr("sys.argv", ["hasten", "simulate", *map(str, arguments)])
        code = errors.run(app)
        out = capsys.readouterr()
        return code, out.out, out.err

    return call


def test_the_command_compares_both_modes(tmp_path, hasten):
    path = write_run(tmp_path)
    code, out, err = hasten(path, "--models", 200, "--gpus", 4, "--preempt-every", "2 h", "--json")
    assert code == 0, err
    stop, full = json.loads(out)
    assert (stop["mode"], full["mode"]) == ("stop-when-met", "exhaustive")
    assert stop["models"] == 200
    assert hasten(path, "--models", 200, "--gpus", 4, "--preempt-every", "2 h", "--json")[1] == out
    # With models that meet their goal at the first rung, the second is what exhaustive costs more.
    code, out, _ = hasten(path, "--models", 100, "--met", "int8=1", "--pod-start", "0.001 s", "--json")
    stop, full = json.loads(out)
    assert full["gpu_work_h"] - stop["gpu_work_h"] == pytest.approx(100 * 20 / 3600)
    code, out, _ = hasten(path, "--models", 50)
    assert "Where the queue forms (stop-when-met):" in out
    assert "GPU baseline / benchmark: " in out
    assert "Rungs with measured times: int8, fp16." in out


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("nowhere.json",), "nowhere.json: there is no such file"),
        (("run", "--met", "int9=1"), "--met: given 'int9=1', accepted: RUNG=SHARE"),
        (("run", "--met", "int8=2"), "--met: given 'int8=2'"),
        (("run", "--met", "int8=0.8", "--met", "fp16=0.8"), "add up to 1.6"),
        (("run", "--pod-start", "30"), "--pod-start: given '30'"),
        (("run", "--gpus", "0"), "--gpus"),
    ],
)
def test_mistakes_are_one_line(tmp_path, hasten, arguments, words, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_run(tmp_path / "run")
    code, out, err = hasten(*arguments)
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert words in err
