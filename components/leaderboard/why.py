"""The pick in words that a person can act on."""

import math

from components.core.contracts.job import Goal
from components.core.contracts.leaderboard import Candidate, Leaderboard, Ratio
from components.core.contracts.variant import Status
from components.core.formats import fraction, metric_name, milliseconds, runtime_name, size, times
from components.leaderboard.goal import accuracy_of, drop_of
from components.leaderboard.standing import Standing, baseline_of, best_untouched, faster, reaching_yardsticks


def why_winner(winner: Candidate, board: Leaderboard, goal: Goal, rows: list[Standing]) -> str:
    """What `winner` gained over the baseline as the user runs it and over the untouched model's best runtime."""
    baseline = baseline_of(board)
    parts = [f"{winner.id} is {_gain(winner, baseline)}", *_untouched(winner, best_untouched(board))]
    sentence = ", and ".join(parts)
    sentences = [f"{sentence}. {_accuracy(winner, baseline, goal)}"]
    if winner.size_bytes and baseline.size_bytes:
        factor = baseline.size_bytes / winner.size_bytes
        change = f"{times(factor)} smaller" if factor >= 1 else f"{times(1 / factor)} larger"
        sentences.append(f"Its file is {size(winner.size_bytes)}, {change}.")
    sentences += _rivals(winner, rows)
    if winner.stable is False:
        sentences.append("Its timing did not settle: run it again on a quiet machine before you rely on the numbers.")
    return " ".join(sentences)


def why_none(board: Leaderboard, goal: Goal, rows: list[Standing]) -> str:
    """Why no row wins: the nearest miss and by how much, or what stopped the candidates."""
    baseline = baseline_of(board)
    if baseline.status is not Status.OK:
        return (
            f"No winner: the baseline {baseline.id} {baseline.status} ({baseline.reason or 'no reason given'}), and "
            "without it there is no speed-up and no accuracy drop. Make the model run first."
        )
    tried = [standing for standing in rows if not standing.row.reference and standing.row.id != baseline.id]
    if not tried:
        return "No winner: no candidate was tried yet."
    near = nearest(rows, baseline)
    if near is None:
        listed = "; ".join(
            f"{standing.row.id}: {_reasons(standing)}" for standing in sorted(tried, key=lambda each: each.row.id)
        )
        return f"No winner: none of the candidates could be measured against the goal. {listed}."
    enough = reaching_yardsticks(board, goal)
    if enough:
        switch = enough[0]
        return (
            f"No winner, yet the goal is within reach: the untouched model in {runtime_name(switch.runtime)} "
            f"({switch.id}) already reaches it, {_gain(switch, baseline)}. That is a runtime switch and not a faster "
            f"model: switch the runtime, or set a stricter goal. Nearest candidate: {near.row.id}, {_reasons(near)}."
        )
    sentences = [f"No candidate meets the goal. Nearest: {near.row.id}, {_reasons(near)}."]
    relax = [miss.relax for miss in near.misses]
    untouched = best_untouched(board)
    if untouched is not None and not faster(near.row, untouched):
        sentences.append(
            f"So far a runtime switch alone gains as much: {untouched.id}, the untouched model, is "
            f"{_gain(untouched, baseline)}. Climb further rungs."
        )
    elif all(relax):
        sentences.append(f"It would have met {' with '.join(relax)}. Relax the goal so far, or climb further rungs.")
    else:
        sentences.append("Climb further rungs, or try another runtime.")
    return " ".join(sentences)


def nearest(rows: list[Standing], baseline: Candidate) -> Standing | None:
    """The candidate with the smallest shortfall, or None where none has all its numbers."""
    measured = [
        standing
        for standing in rows
        if not standing.row.reference and standing.row.id != baseline.id and math.isfinite(standing.shortfall)
    ]
    return min(measured, key=lambda standing: (standing.shortfall, standing.row.id), default=None)


def remark(standing: Standing, winner: Candidate | None, goal: Goal) -> str:
    """What a measured row's reason says about the goal and the pick."""
    row = standing.row
    if winner is not None and row.id == winner.id:
        return "the winner"
    if standing.misses:
        return _reasons(standing)
    if winner is None:
        return ""
    if faster(winner, row):
        return f"meets the goal; {winner.id} is faster"
    mine, theirs = accuracy_of(row, goal.metric), accuracy_of(winner, goal.metric)
    better = "more accurate" if mine is not None and theirs is not None and theirs > mine else "smaller or faster"
    return f"meets the goal; {winner.id} is as fast within the intervals and {better}"


def _gain(row: Candidate, baseline: Candidate) -> str:
    where = f"{baseline.id} as you run it ({runtime_name(baseline.runtime)})"
    path = ""
    if row.latency_ms is not None and baseline.latency_ms is not None:
        path = f"p50 {milliseconds(baseline.latency_ms.p50)} to {milliseconds(row.latency_ms.p50)}"
    if row.speedup is None:
        return f"measured against {where}" + (f" ({path})" if path else "")
    return f"{times(row.speedup.ratio)} as fast as {where}, {_interval(row.speedup)}" + (f", {path}" if path else "")


def _untouched(winner: Candidate, untouched: Candidate | None) -> list[str]:
    if untouched is None:
        return []
    name = f"the untouched model in its best runtime ({untouched.id}, {runtime_name(untouched.runtime)})"
    if winner.speedup is None or untouched.speedup is None:
        return []
    mine, theirs = winner.speedup, untouched.speedup
    ratio = Ratio(
        ratio=mine.ratio / theirs.ratio, ci_low=mine.ci_low / theirs.ci_high, ci_high=mine.ci_high / theirs.ci_low
    )
    if ratio.ci_low > 1:
        return [f"{times(ratio.ratio)} as fast as {name}, {_interval(ratio)}"]
    if ratio.ci_high < 1:
        return [f"slower than {name}: {times(ratio.ratio)}, {_interval(ratio)}"]
    return [f"not clearly faster than {name}: {times(ratio.ratio)}, {_interval(ratio)}"]


def _interval(ratio: Ratio) -> str:
    return f"95% interval {times(ratio.ci_low)} to {times(ratio.ci_high)}"


def _accuracy(winner: Candidate, baseline: Candidate, goal: Goal) -> str:
    name = metric_name(goal.metric)
    before, after = accuracy_of(baseline, goal.metric), accuracy_of(winner, goal.metric)
    drop = drop_of(winner, baseline, goal.metric)
    if before is None or after is None or drop is None:
        return f"{name} was not measured on both."
    change = f"{fraction(drop)} lost" if drop > 0 else f"{fraction(-drop)} gained" if drop < 0 else "nothing lost"
    return f"{name} {fraction(before)} to {fraction(after)}: {change}, {goal.max_accuracy_drop:g} allowed."


def _rivals(winner: Candidate, rows: list[Standing]) -> list[str]:
    rivals = [standing.row for standing in rows if not standing.misses and standing.row.id != winner.id]
    ties = sorted(row.id for row in rivals if not faster(winner, row))
    beaten = sorted(row.id for row in rivals if faster(winner, row))
    texts = []
    if ties:
        texts.append(f"As fast within the intervals, but less accurate, larger or slower: {', '.join(ties)}.")
    if beaten:
        texts.append(f"Meets the goal too, but slower: {', '.join(beaten)}.")
    return texts


def _reasons(standing: Standing) -> str:
    return "; ".join(miss.reason for miss in standing.misses)
