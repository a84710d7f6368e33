"""A board's outcome as flat numbers, for tools that compare runs."""

from components.core.contracts.leaderboard import Candidate, Leaderboard


def metrics_of(board: Leaderboard) -> dict[str, float]:
    """The winner's numbers and those of the baseline, by name with the unit; without a winner the baseline's alone."""
    found: dict[str, float] = {"goal_met": float(bool(board.goal_met))}
    rows = {row.id: row for row in board.candidates}
    for kind, name in (("winner", board.winner), ("baseline", board.baseline)):
        row = rows.get(name) if name else None
        if row is not None:
            found |= {f"{kind}_{key}": value for key, value in _numbers(row).items()}
    if board.ledger is not None and board.ledger.total is not None:
        total = board.ledger.total
        found |= {f"cost_{key}": getattr(total, key) for key in ("wall_seconds", "core_seconds", "gpu_seconds")}
    return found


def _numbers(row: Candidate) -> dict[str, float]:
    numbers = {
        "p50_ms": row.latency_ms.p50 if row.latency_ms else None,
        "p99_ms": row.latency_ms.p99 if row.latency_ms else None,
        "speedup": row.speedup.ratio if row.speedup else None,
        "images_per_second": row.throughput,
        "accuracy": row.accuracy.value if row.accuracy else None,
        "accuracy_drop": row.accuracy.drop if row.accuracy else None,
        "size_bytes": float(row.size_bytes) if row.size_bytes is not None else None,
    }
    return {key: value for key, value in numbers.items() if value is not None}
