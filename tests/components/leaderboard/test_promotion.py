"""Who is promoted: only what is better with its whole interval."""

import pytest

from components.core.contracts.champion import Challenge, Difference, Side, Verdict
from components.core.contracts.job import Job, Retrain
from components.core.contracts.leaderboard import Latency, Ratio
from components.leaderboard.promotion import judge
from fixtures.published import make_job


def job(**limits: float) -> Job:
    return make_job("file:///models").model_copy(update={"retrain": Retrain(**limits)})  # type: ignore[arg-type]


def challenge(gain: tuple[float, float], speed: tuple[float, float]) -> Challenge:
    """Of intervals; their middles are the values."""
    middle = sum(gain) / 2
    latency = Latency(p50=10, p90=11, p99=12)
    return Challenge(
        images=50,
        champion=Side(id="old", accuracy=0.5, latency_ms=latency, stable=True),
        challenger=Side(id="new", accuracy=0.5 + middle, latency_ms=latency, stable=True),
        accuracy=Difference(value=middle, ci_low=gain[0], ci_high=gain[1]),
        speedup=Ratio(ratio=sum(speed) / 2, ci_low=speed[0], ci_high=speed[1]),
    )


SAME, FASTER, SLOWER, UNSURE = (0.98, 1.02), (1.2, 1.3), (0.6, 0.7), (0.7, 1.3)
GAIN, LOSS, EQUAL, PERHAPS = (0.02, 0.06), (-0.06, -0.02), (-0.005, 0.005), (-0.02, 0.05)


@pytest.mark.parametrize(
    ("gain", "speed", "verdict", "words"),
    [
        (GAIN, SAME, Verdict.PROMOTE, "more accurate than the champion and quick enough"),
        (GAIN, FASTER, Verdict.PROMOTE, "more accurate than the champion and quick enough"),
        (EQUAL, FASTER, Verdict.PROMOTE, "faster than the champion and accurate enough"),
        (GAIN, SLOWER, Verdict.KEEP, "more accurate, but slower than the champion by more than 1.10x allows"),
        (GAIN, UNSURE, Verdict.KEEP, "more accurate, but perhaps slower than the champion by more than 1.10x allows"),
        (PERHAPS, FASTER, Verdict.KEEP, "faster, but not surely within 0.010 of its accuracy"),
        (LOSS, FASTER, Verdict.KEEP, "faster, but not surely within 0.010 of its accuracy"),
        (LOSS, SAME, Verdict.KEEP, "less accurate than the champion"),
        (EQUAL, SAME, Verdict.KEEP, "not better than the champion beyond noise"),
        (PERHAPS, SAME, Verdict.KEEP, "not better than the champion beyond noise"),
        (EQUAL, SLOWER, Verdict.KEEP, "slower than the champion and not more accurate"),
    ],
)
def test_verdicts(gain: tuple[float, float], speed: tuple[float, float], verdict: Verdict, words: str) -> None:
    outcome = judge(job(), challenge(gain, speed), "v1", "report")
    assert (outcome.verdict, outcome.champion, outcome.report_uri) == (verdict, "v1", "report")
    assert outcome.reason.startswith(f"{words}: mAP50 0.500 -> "), outcome.reason
    assert "95% interval" in outcome.reason


def test_the_limits_are_the_jobs() -> None:
    assert judge(job(min_accuracy_gain=0.03), challenge(GAIN, SAME), "v1").verdict is Verdict.KEEP
    assert judge(job(max_slowdown=2.0), challenge(GAIN, SLOWER), "v1").verdict is Verdict.PROMOTE
    assert judge(job(min_speedup=1.25), challenge(EQUAL, FASTER), "v1").verdict is Verdict.KEEP
    assert judge(job(max_accuracy_loss=0.1), challenge(LOSS, FASTER), "v1").verdict is Verdict.PROMOTE


def test_without_a_challenger_the_champion_stays_and_the_reason_is_told() -> None:
    outcome = judge(job(), Challenge(reason="No candidate meets the goal."), "v1", "report")
    assert outcome.verdict is Verdict.KEEP
    assert outcome.reason == "no challenger: No candidate meets the goal."
