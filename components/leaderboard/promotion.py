"""Whether a challenger takes the champion's place: only if it is better beyond noise, and within the goal."""

from components.core.contracts.champion import Challenge, Difference, Outcome, Verdict
from components.core.contracts.job import Job, Retrain
from components.core.contracts.leaderboard import Ratio
from components.core.formats import fraction, metric_name, milliseconds, times


def judge(job: Job, challenge: Challenge, champion: str, report_uri: str = "") -> Outcome:
    """The verdict, and why.

    A challenger is there only if it meets the goal. It is promoted if it is more accurate beyond noise and not slower
    than allowed, or faster beyond noise and not less accurate than allowed. All four are held against an end of a 95%
    interval: what cannot be told from noise is not promoted.

    Args:
        job: `retrain` has the limits.
        challenge: what was measured.
        champion: version in production when the run began.
        report_uri: folder of the ladder's report.
    """
    limits = job.retrain or Retrain()
    if challenge.accuracy is None or challenge.speedup is None:
        reason = f"no challenger: {challenge.reason or 'nothing was measured'}"
        verdict = Verdict.KEEP
    else:
        verdict, words = _compare(challenge.accuracy, challenge.speedup, limits)
        reason = f"{words}: {_numbers(challenge, challenge.accuracy, challenge.speedup)}"
    return Outcome(
        verdict=verdict,
        reason=reason,
        champion=champion,
        stage="challenge",
        challenge=challenge,
        report_uri=report_uri,
    )


def _compare(gain: Difference, speed: Ratio, limits: Retrain) -> tuple[Verdict, str]:
    more_accurate = gain.ci_low > limits.min_accuracy_gain
    quick_enough = speed.ci_low >= 1 / limits.max_slowdown
    faster = speed.ci_low > limits.min_speedup
    accurate_enough = gain.ci_low >= -limits.max_accuracy_loss
    if more_accurate and quick_enough:
        return Verdict.PROMOTE, "more accurate than the champion and quick enough"
    if faster and accurate_enough:
        return Verdict.PROMOTE, "faster than the champion and accurate enough"
    if more_accurate:
        slower = "slower than the champion" if speed.ci_high < 1 else "perhaps slower than the champion"
        return Verdict.KEEP, f"more accurate, but {slower} by more than {times(limits.max_slowdown)} allows"
    if faster:
        return Verdict.KEEP, f"faster, but not surely within {fraction(limits.max_accuracy_loss)} of its accuracy"
    if gain.ci_high < 0:
        return Verdict.KEEP, "less accurate than the champion"
    if speed.ci_high < 1 / limits.max_slowdown:
        return Verdict.KEEP, "slower than the champion and not more accurate"
    return Verdict.KEEP, "not better than the champion beyond noise"


def _numbers(challenge: Challenge, gain: Difference, speed: Ratio) -> str:
    if challenge.champion is None or challenge.challenger is None:
        raise ValueError("a difference is of two models")
    before, after = challenge.champion, challenge.challenger
    low, high = (f"{end:+.3f}" for end in (gain.ci_low, gain.ci_high))
    slow, fast = times(speed.ci_low), times(speed.ci_high)
    return (
        f"{metric_name(challenge.metric)} {fraction(before.accuracy)} -> {fraction(after.accuracy)} "
        f"({gain.value:+.3f}, 95% interval {low} to {high}, {challenge.images} test images), "
        f"p50 {milliseconds(before.latency_ms.p50)} -> {milliseconds(after.latency_ms.p50)} "
        f"({times(speed.ratio)} as fast, 95% interval {slow} to {fast})"
    )
