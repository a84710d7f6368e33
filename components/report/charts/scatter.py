"""Accuracy against latency: every measured row, the Pareto front and the goal region."""

import itertools
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from components.core.contracts.leaderboard import Candidate, Leaderboard
from components.core.formats import as_limit, fraction, metric_name, milliseconds, plain, times
from components.report.charts import labels
from components.report.charts.svg import figure, inline
from components.report.theme import KINDS, Kind, kind_of, placeholder

if TYPE_CHECKING:
    from matplotlib.axes import Axes

WIDTH, HEIGHT = 680.0, 390.0
"""Size in points."""
MAX_LABELS = 18
"""More labels than this would be unreadable; the table has all rows."""
_LOG_FROM = 8.0
"""Ratio of the largest to the smallest latency from which the axis is logarithmic."""


@dataclass(frozen=True)
class Point:
    """A row with the two numbers that the chart shows."""

    row: Candidate
    kind: Kind
    p50: float
    accuracy: float


@dataclass(frozen=True)
class Region:
    """The goal in the chart's units; None where the goal sets no such limit."""

    max_p50: float | None
    min_accuracy: float | None


def points_of(board: Leaderboard) -> list[Point]:
    """The rows with a latency and an accuracy on the goal's metric, in the order of the board."""
    found = []
    for row in board.candidates:
        value = accuracy_of(row, board)
        if row.latency_ms is not None and value is not None and math.isfinite(value) and row.latency_ms.p50 > 0:
            found.append(Point(row, kind_of(row, board), row.latency_ms.p50, value))
    return found


def accuracy_of(row: Candidate, board: Leaderboard) -> float | None:
    """The row's value of the goal's metric, or None."""
    if row.accuracy is not None and row.accuracy.metric is board.goal.metric:
        return row.accuracy.value
    return row.other_accuracy.get(board.goal.metric)


def region_of(board: Leaderboard) -> Region:
    """The corner of the chart that the goal asks for."""
    baseline = next((point for point in points_of(board) if point.row.id == board.baseline), None)
    limits = [board.goal.max_p50] if board.goal.max_p50 is not None else []
    if baseline is not None and board.goal.min_speedup is not None:
        limits.append(baseline.p50 / board.goal.min_speedup)
    floor = baseline.accuracy - board.goal.max_accuracy_drop if baseline is not None else None
    return Region(min(limits, default=None), floor)


def scatter(board: Leaderboard) -> str | None:
    """The chart as inline SVG, or None where no row has both numbers."""
    points = points_of(board)
    if not points:
        return None
    region = region_of(board)
    with figure(WIDTH, HEIGHT) as drawing:
        axes = drawing.add_subplot()
        _scales(axes, points, region, board)
        _goal(axes, region, board)
        _front(axes, points, board)
        floor = axes.get_ylim()[0]
        for point in points:
            _draw(axes, point, floor, winner=point.row.id == board.winner)
        _legend(axes, points)
        drawing.draw_without_rendering()
        _label(axes, points, floor, board)
        title = f"{metric_name(board.goal.metric)} against end-to-end p50 latency"
        return inline(drawing, "scatter", title, _describe(points, region, board))


def _scales(axes: "Axes", points: list[Point], region: Region, board: Leaderboard) -> None:
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    xs = [point.p50 for point in points] + ([region.max_p50] if region.max_p50 else [])
    low, high = min(xs), max(xs)
    if high / low > _LOG_FROM:
        axes.set_xscale("log")
        axes.set_xlim(low / 1.35, high * 1.35)
        axes.xaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
        axes.xaxis.set_minor_formatter(NullFormatter())
        axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    else:
        span = (high - low) or high
        axes.set_xlim(max(low - 0.15 * span, 0), high + 0.15 * span)
    ys = [point.accuracy for point in points if point.accuracy >= _cut(region, board)]
    ys = (ys or [point.accuracy for point in points]) + ([region.min_accuracy] if region.min_accuracy else [])
    span = max(max(ys) - min(ys), 0.01)
    lost = any(point.accuracy < _cut(region, board) for point in points)
    axes.set_ylim(min(ys) - (0.3 if lost else 0.18) * span, max(ys) + 0.18 * span)
    scale = ", logarithmic" if axes.get_xscale() == "log" else ""
    axes.set_xlabel(f"end-to-end p50 latency, ms{scale} (further left is faster)")
    axes.set_ylabel(f"{metric_name(board.goal.metric)} on the test split (higher is better)")
    axes.grid(visible=True, which="major")
    axes.tick_params(length=0, which="both")


def _cut(region: Region, board: Leaderboard) -> float:
    """Accuracy below which a row is shown at the lower edge: a ruined model must not flatten the rest."""
    if region.min_accuracy is None:
        return -math.inf
    return region.min_accuracy - max(0.1, 5 * board.goal.max_accuracy_drop)


def _goal(axes: "Axes", region: Region, board: Leaderboard) -> None:
    colour = placeholder("goal")
    (left, right), (bottom, top) = axes.get_xlim(), axes.get_ylim()
    line: dict[str, Any] = {"color": colour, "linewidth": 1.1, "linestyle": (0, (4, 3)), "zorder": 1}
    text: dict[str, Any] = {"color": colour, "fontsize": 8.5, "zorder": 6}
    edge = min(region.max_p50 if region.max_p50 is not None else right, right)
    floor = max(region.min_accuracy if region.min_accuracy is not None else bottom, bottom)
    axes.fill_between([left, edge], floor, top, color=colour, alpha=0.09, linewidth=0, zorder=0)
    if region.max_p50 is not None:
        axes.axvline(region.max_p50, **line)
        wanted = f"goal: at most {as_limit(region.max_p50, milliseconds)}"
        if board.goal.min_speedup is not None and region.max_p50 != board.goal.max_p50:
            wanted += f" ({as_limit(board.goal.min_speedup, times)})"
        axes.annotate(
            wanted, (region.max_p50, bottom), (4, 5), textcoords="offset points", rotation=90, va="bottom", **text
        )
    if region.min_accuracy is not None:
        axes.axhline(region.min_accuracy, **line)
        wanted = f"goal: at least {fraction(region.min_accuracy)}"
        axes.annotate(
            wanted, (right, region.min_accuracy), (-3, -4), textcoords="offset points", ha="right", va="top", **text
        )


def _front(axes: "Axes", points: list[Point], board: Leaderboard) -> None:
    front = sorted((point.p50, point.accuracy) for point in points if point.row.id in board.pareto)
    if not front:
        return
    (_, right), (bottom, _) = axes.get_xlim(), axes.get_ylim()
    # Down to the edge and out to the right: everything below and right of the steps is beaten by a row on the front.
    xs = [front[0][0], *(x for x, _ in front), right]
    ys = [bottom, *(y for _, y in front), front[-1][1]]
    axes.step(xs, ys, where="post", color=placeholder("front"), linewidth=1.3, zorder=2, label="Pareto front")


def _draw(axes: "Axes", point: Point, floor: float, *, winner: bool) -> None:
    colour = placeholder(f"kind-{point.kind.name}")
    y = max(point.accuracy, floor)
    speedup = point.row.speedup
    if (
        speedup is not None
        and 0 < speedup.ci_low <= speedup.ratio <= speedup.ci_high
        and speedup.ci_low < speedup.ci_high
    ):
        low, high = point.p50 * speedup.ratio / speedup.ci_high, point.p50 * speedup.ratio / speedup.ci_low
        axes.errorbar(
            [point.p50], [y], xerr=[[point.p50 - low], [high - point.p50]],
            color=colour, elinewidth=1.2, capsize=3, capthick=1.2, zorder=3,
        )  # fmt: skip
    if winner:
        axes.plot([point.p50], [y], "o", markersize=17, markerfacecolor="none", markeredgecolor=colour, zorder=4)
    # A point on the lower edge belongs further down; half of it is in sight.
    axes.plot(
        [point.p50], [y], point.kind.marker, color=colour, markersize=8.5, markeredgecolor=placeholder("panel"),
        markeredgewidth=0.8, zorder=5, clip_on=False,
    )  # fmt: skip


def _legend(axes: "Axes", points: list[Point]) -> None:
    from matplotlib.lines import Line2D

    shown = {point.kind.name for point in points}
    handles: list[Line2D] = [
        Line2D(
            [],
            [],
            linestyle="",
            marker=kind.marker,
            color=placeholder(f"kind-{kind.name}"),
            markersize=7,
            label=kind.label,
        )
        for kind in KINDS
        if kind.name in shown
    ]
    handles += [line for line in axes.get_lines() if line.get_label() == "Pareto front"]
    axes.figure.legend(
        handles=handles, loc="outside upper left", ncols=len(handles), frameon=False, fontsize=8.5,
        handletextpad=0.4, columnspacing=1.2, borderaxespad=0.1, labelcolor=placeholder("muted"),
    )  # fmt: skip


def _label(axes: "Axes", points: list[Point], floor: float, board: Leaderboard) -> None:
    renderer = axes.figure.canvas.get_renderer()  # type: ignore[attr-defined]
    chosen = sorted(points, key=lambda point: _importance(point, board))[:MAX_LABELS]
    texts, centres, sizes = [], [], []
    for point in chosen:
        winner = point.row.id == board.winner
        name = shortened(point.row.id)
        below = point.accuracy < floor
        text = axes.annotate(
            f"{name} ({fraction(point.accuracy)}, below the scale)" if below else name,
            (point.p50, max(point.accuracy, floor)),
            xytext=(0, 0), textcoords="offset points", ha="center", va="center",
            fontsize=9, fontweight="bold" if winner else "normal", zorder=7,
        )  # fmt: skip
        extent = text.get_window_extent(renderer)
        centres.append(tuple(axes.transData.transform((point.p50, max(point.accuracy, floor)))))
        sizes.append((extent.width, extent.height))
        texts.append(text)
    bounds = axes.get_window_extent(renderer)
    taken = [*_lines(axes), *(_box(text.get_window_extent(renderer)) for text in axes.texts if text not in texts)]
    for point in points:
        x, y = axes.transData.transform((point.p50, max(point.accuracy, floor)))
        taken.append(labels.Box(x - 6, y - 6, x + 6, y + 6))
    colour = placeholder("muted")
    frame = labels.Box(bounds.x0 + 2, bounds.y0 + 2, bounds.x1 - 2, bounds.y1 - 2)
    for text, place in zip(texts, labels.place(centres, sizes, frame, taken), strict=True):
        text.set_position((place.dx, place.dy))
        if place.leader:
            axes.annotate(
                "", text.xy, xytext=(place.dx, place.dy), textcoords="offset points", zorder=2.5,
                arrowprops={"arrowstyle": "-", "color": colour, "linewidth": 0.6, "shrinkA": 7, "shrinkB": 5},
            )  # fmt: skip


def _lines(axes: "Axes") -> list[labels.Box]:
    """Every horizontal and vertical stroke (goal, Pareto front, error bars) as a thin rectangle, in points."""
    found = []
    for line in axes.get_lines():
        corners = np.asarray(line.get_transform().transform_path(line.get_path()).vertices, float).tolist()
        for (x0, y0), (x1, y1) in itertools.pairwise(corners):
            # A stepped line is stored as its corners before the steps: out first, then up.
            for xa, ya, xb, yb in ((x0, y0, x1, y0), (x1, y0, x1, y1)):
                found.append(labels.Box(min(xa, xb), min(ya, yb), max(xa, xb) + 1, max(ya, yb) + 1))
    return found


def _box(extent: Any) -> labels.Box:
    return labels.Box(extent.x0, extent.y0, extent.x1, extent.y1)


def _importance(point: Point, board: Leaderboard) -> tuple[int, float, str]:
    first = [
        point.row.id == board.winner,
        point.row.id == board.baseline,
        point.row.id in board.pareto,
        point.row.reference,
    ]
    return (first.index(True) if True in first else len(first), point.p50, point.row.id)


def shortened(text: str, length: int = 34) -> str:
    """The text on one line, cut to `length` characters."""
    line = plain(text)
    return line if len(line) <= length else f"{line[: length - 1]}…"


def _describe(points: list[Point], region: Region, board: Leaderboard) -> str:
    listed = "; ".join(
        f"{plain(point.row.id)}: {milliseconds(point.p50)}, {fraction(point.accuracy)}"
        for point in sorted(points, key=lambda each: each.p50)
    )
    goal = []
    if region.max_p50 is not None:
        goal.append(f"at most {milliseconds(region.max_p50)}")
    if region.min_accuracy is not None:
        goal.append(f"at least {fraction(region.min_accuracy)}")
    front = ", ".join(plain(name) for name in board.pareto)
    return f"{listed}. Goal region: {' and '.join(goal) or 'none'}. Pareto front: {front or 'none'}."
