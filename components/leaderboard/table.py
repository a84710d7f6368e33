"""The leaderboard as rows of text, for a terminal and for Markdown."""

from components.core.contracts.leaderboard import Candidate, Leaderboard
from components.core.formats import fraction, mark, markdown, metric_name, milliseconds, per_second, plain, size, times

NUMERIC = frozenset({"p50", "p99", "speed-up", "95% interval", "drop", "images/s", "size", "peak RSS"})
"""Headers of the columns that are aligned right; the accuracy column, named after its metric, is one too."""


def header(board: Leaderboard) -> list[str]:
    """The column titles."""
    return [
        "", "id", "rung", "runtime", "status", "p50", "p99", "speed-up", "95% interval",
        metric_name(board.goal.metric), "drop", "images/s", "size", "peak RSS", "reason",
    ]  # fmt: skip


def rows(board: Leaderboard) -> list[list[str]]:
    """One list of cells a candidate, the fastest first, then those without a latency; empty cell: not measured.

    The first cell says in one word what the row is: ``winner``, ``meets``, ``baseline``, ``yardstick`` or nothing.
    Cells are one printable line each, whatever the row holds.
    """
    return [[plain(cell) for cell in _cells(row, board)] for row in ordered(board)]


def ordered(board: Leaderboard) -> list[Candidate]:
    """The rows, the fastest first, then those without a latency in the order of the board."""
    measured = [row for row in board.candidates if row.latency_ms is not None]
    rest = [row for row in board.candidates if row.latency_ms is None]
    return sorted(measured, key=lambda row: (row.latency_ms.p50 if row.latency_ms else 0.0, row.id)) + rest


def render_markdown(board: Leaderboard) -> str:
    """The table in Markdown; whatever a row holds, it stays in its cell."""
    titles = header(board)
    right = NUMERIC | {metric_name(board.goal.metric)}
    lines = [
        _line(titles),
        _line(["---:" if title in right else "---" for title in titles]),
        *(_line([markdown(cell) for cell in cells]) for cells in rows(board)),
    ]
    return "\n".join(lines) + "\n"


def _cells(row: Candidate, board: Leaderboard) -> list[str]:
    latency, speedup, accuracy = row.latency_ms, row.speedup, row.accuracy
    status = f"{row.status}, unstable" if row.stable is False else str(row.status)
    return [
        mark(row, board),
        row.id,
        row.rung,
        str(row.runtime),
        status,
        milliseconds(latency.p50) if latency else "",
        milliseconds(latency.p99) if latency else "",
        times(speedup.ratio) if speedup else "",
        f"{times(speedup.ci_low)} to {times(speedup.ci_high)}" if speedup else "",
        fraction(accuracy.value) if accuracy else "",
        fraction(accuracy.drop) if accuracy else "",
        per_second(row.throughput) if row.throughput is not None else "",
        size(row.size_bytes) if row.size_bytes is not None else "",
        size(row.peak_rss_bytes) if row.peak_rss_bytes is not None else "",
        row.reason,
    ]


def _line(cells: list[str]) -> str:
    return f"| {' | '.join(cells)} |"
