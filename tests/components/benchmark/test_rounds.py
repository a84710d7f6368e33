"""The order of rounds, extra rounds and dropping out, with scripted times in the place of processes."""

from dataclasses import dataclass, field

import pytest

from components.benchmark.process import WorkerError
from components.benchmark.rounds import Contestant, Pace, is_stable, ratios, run_rounds, speedup
from components.benchmark.trial import preferred, setting_name, settings

PACE = Pace(rounds=6, seconds=0.1, seed=1)


@dataclass
class Scripted:
    """Answers `round` with the next of its times; an exception among them is raised."""

    name: str
    times: list
    asked: list[str]
    count: int = field(default=0)

    def ask(self, command, doing, silence, **fields):
        assert (command, fields) == ("round", {"seconds": PACE.seconds})
        self.asked.append(self.name)
        value = self.times[self.count % len(self.times)]
        self.count += 1
        if isinstance(value, Exception):
            raise value
        return {"end_to_end_ms": [value] * 3, "model_ms": [value / 2] * 3}


def race(**times) -> tuple[dict[str, Contestant], list[str]]:
    asked: list[str] = []
    contestants = {name: Contestant(name, Scripted(name, script, asked)) for name, script in times.items()}
    baseline, *others = contestants.values()
    run_rounds(baseline, others, PACE, lambda *_: None)
    return contestants, asked


def test_every_round_has_everyone_and_the_order_rotates():
    contestants, asked = race(base=[10.0], one=[5.0], two=[20.0])
    assert asked[:9] == ["base", "one", "two", "one", "two", "base", "two", "base", "one"]
    assert len(asked) == 18
    base, one, two = contestants.values()
    assert speedup(one, base, 1).ratio == 2
    assert speedup(two, base, 1).ratio == 0.5
    assert speedup(two, one, 1).ratio == 0.25
    assert one.latency().p50 == 5
    assert one.model_latency().p50 == 2.5
    assert one.throughput() == 200


def test_the_baseline_over_itself_is_exactly_one_with_the_noise_as_interval():
    base = race(base=[10.0, 10.2])[0]["base"]
    found = speedup(base, base, 1)
    assert found.ratio == 1
    assert found.ci_low < 1 < found.ci_high
    assert is_stable(base, base, 1)


def test_only_the_unstable_run_extra_rounds_together_with_the_baseline():
    contestants, asked = race(base=[10.0], calm=[5.0], wild=[2.0, 9.0])
    base, calm, wild = contestants.values()
    assert len(calm.rounds) == 6
    assert len(base.rounds) == len(wild.rounds) == 12
    assert "calm" not in asked[18:]
    assert not is_stable(wild, base, 1)
    assert is_stable(calm, base, 1)
    assert len(ratios(calm, base)) == 6


def test_extra_rounds_end_as_soon_as_the_rounds_agree():
    contestants, _ = race(base=[10.0], late=[2.0, 9.0, *[5.0] * 100])
    late = contestants["late"]
    assert len(late.rounds) == 9
    assert is_stable(late, contestants["base"], 1)


def test_a_contestant_that_fails_is_out_and_the_others_go_on():
    contestants, _ = race(base=[10.0], bad=[5.0, 5.0, WorkerError("crashed")], good=[5.0])
    assert str(contestants["bad"].failure) == "crashed"
    assert len(contestants["good"].rounds) == 6
    assert contestants["good"].failure is None


def test_without_the_baseline_nothing_goes_on():
    with pytest.raises(WorkerError, match="crashed"):
        race(base=[10.0, WorkerError("crashed")], good=[5.0])


def test_thread_settings_and_their_choice():
    assert settings(1) == [(1, True)]
    assert settings(4) == [(4, True), (4, False), (1, True)]
    assert setting_name(4, passive=False) == "4 threads, spinning"
    assert setting_name(1, passive=True) == "1 thread"
    assert preferred([("sleeping", 10.0), ("spinning", 9.9), ("one", 12.0)]) == "sleeping"
    assert preferred([("sleeping", 10.0), ("spinning", 8.0), ("one", 7.0)]) == "one"
