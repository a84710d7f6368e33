"""A run's folder as other platforms are told of it: the leaderboard, and how the run went where it was a local one."""

from dataclasses import dataclass
from pathlib import Path

from pydantic import ValidationError

from components.core.contracts.leaderboard import Candidate, Leaderboard
from components.core.errors import UserError
from pipelines.local.record import RunRecord, last_record

LEADERBOARD = "leaderboard.json"


@dataclass(frozen=True)
class Results:
    """What a run left behind."""

    folder: Path
    board: Leaderboard
    record: RunRecord | None
    """None where the folder is a report of a run on a cluster."""


def read_results(folder: Path) -> Results:
    """Reads the folder of `hasten run --out`, or a report's folder.

    Raises:
        UserError: there is no leaderboard that can be read.
    """
    path = folder / LEADERBOARD
    try:
        board = Leaderboard.model_validate_json(path.read_bytes())
    except OSError as error:
        raise UserError(
            f"{path}: {error.strerror}; give the folder that `hasten run --out` wrote, or that of a report"
        ) from error
    except ValidationError as error:
        raise UserError(f"{path} is no leaderboard that this version of hasten can read") from error
    return Results(folder, board, last_record(folder))


def by_importance(board: Leaderboard) -> list[Candidate]:
    """The board's rows: the winner, the baseline, the Pareto front, then the others as they stand."""
    first = [board.winner, board.baseline, *board.pareto]
    place = {name: number for number, name in reversed(list(enumerate(first)))}
    return sorted(board.candidates, key=lambda row: place.get(row.id, len(first)))
