"""Places for the labels of points, so that they keep clear of one another, of the points and of the frame."""

import itertools
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

_ANGLES = (0, 180, 90, 270, 45, 315, 135, 225, 70, 110, 250, 290, 20, 340, 160, 200)
_DISTANCES = (9, 18, 30, 45, 62, 80)


@dataclass(frozen=True)
class Box:
    """A rectangle in points, y upwards."""

    x0: float
    y0: float
    x1: float
    y1: float

    def overlap(self, other: "Box") -> float:
        """The shared area."""
        width = min(self.x1, other.x1) - max(self.x0, other.x0)
        height = min(self.y1, other.y1) - max(self.y0, other.y0)
        return width * height if width > 0 and height > 0 else 0.0

    def distance(self, x: float, y: float) -> float:
        """How far a point is from the rectangle; 0 inside."""
        return math.hypot(max(self.x0 - x, 0, x - self.x1), max(self.y0 - y, 0, y - self.y1))

    @property
    def area(self) -> float:
        """Width times height."""
        return (self.x1 - self.x0) * (self.y1 - self.y0)

    @property
    def centre(self) -> tuple[float, float]:
        """The middle."""
        return (self.x0 + self.x1) / 2, (self.y0 + self.y1) / 2


@dataclass(frozen=True)
class Placed:
    """Where a label goes: its centre relative to its point, and whether a line should lead to it."""

    dx: float
    dy: float
    box: Box
    leader: bool


def place(
    points: Sequence[tuple[float, float]], sizes: Sequence[tuple[float, float]], frame: Box, taken: Iterable[Box] = ()
) -> list[Placed]:
    """Greedy placement, in the given order: the first label gets the best place.

    Args:
        points: centres in points (1/72 inch).
        sizes: width and height of each label.
        frame: the labels should stay inside.
        taken: rectangles that the labels should not cover, for instance other points and texts.
    """
    markers = [Box(x - 6, y - 6, x + 6, y + 6) for x, y in points]
    obstacles = [*taken, *markers]
    placed: list[Placed] = []
    labels: list[Box] = []
    for index, ((x, y), (width, height)) in enumerate(zip(points, sizes, strict=True)):
        others = [marker for number, marker in enumerate(markers) if number != index]
        best = min(
            (_candidate(x, y, width, height, distance, angle) for distance, angle in _positions()),
            key=lambda each: _cost(each, (x, y), obstacles, others, labels, frame),
        )
        placed.append(best)
        obstacles.append(best.box)
        labels.append(best.box)
    return placed


def _positions() -> Iterable[tuple[int, int]]:
    return itertools.product(_DISTANCES, _ANGLES)


def _candidate(x: float, y: float, width: float, height: float, distance: float, angle: int) -> Placed:
    cosine, sine = math.cos(math.radians(angle)), math.sin(math.radians(angle))
    # The gap is between the point and the label's rectangle, whose centre is half a label further out.
    dx = cosine * distance + (width / 2 if cosine > 0.5 else -width / 2 if cosine < -0.5 else 0)
    dy = sine * distance + (height / 2 if sine > 0.3 else -height / 2 if sine < -0.3 else 0)
    box = Box(x + dx - width / 2, y + dy - height / 2, x + dx + width / 2, y + dy + height / 2)
    return Placed(dx, dy, box, leader=distance > _DISTANCES[0])


def _cost(
    each: Placed,
    point: tuple[float, float],
    obstacles: Sequence[Box],
    others: Sequence[Box],
    labels: Sequence[Box],
    frame: Box,
) -> float:
    covered = sum(each.box.overlap(other) for other in obstacles)
    outside = each.box.area - each.box.overlap(frame)
    own = each.box.distance(*point)
    # A label that is nearer to another point than to its own would be read as that point's, unless a line leads to it.
    mistaken = sum(each.box.distance(*other.centre) < own + 4 for other in others) * (0.1 if each.leader else 1)
    x, y = point
    steps = [(x + each.dx * part / 12, y + each.dy * part / 12) for part in range(1, 12)] if each.leader else []
    crossed = sum(any(other.distance(*step) == 0 for step in steps) for other in (*others, *labels))
    return 6 * covered + 30 * outside + 300 * mistaken + 300 * crossed + math.hypot(each.dx, each.dy)
