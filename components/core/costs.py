"""What a step costs: measured around its logic, kept beside its output, and added to the board by the benchmark.

Steps run in processes or pods of their own and hand folders to one another. Each writes `costs.json` into its output:
the costs of the folders that it was made from, then its own. So the account travels with the artifacts, through any
store, and what the cache gives brings along what it once took.
"""

import json
import resource
import time
import uuid
from collections.abc import Iterable, Sequence
from pathlib import Path

from pydantic import ValidationError

from components.core.contracts.leaderboard import Leaderboard
from components.core.contracts.ledger import Charge, Cost, Ledger
from components.core.files import write_json_atomic

COSTS = "costs.json"
FETCH = "fetch"


class Meter:
    """Counts from the moment it is made; every step has one."""

    def __init__(self, step: str) -> None:
        self._step, self._id = step, uuid.uuid4().hex[:12]
        self._started, self._clock, self._cores = time.time(), time.monotonic(), _core_seconds()

    def cost(self, gpus: float = 0, wall_seconds: float = 0.0, core_seconds: float = 0.0) -> Cost:
        """What the step took so far.

        Args:
            gpus: how many it uses.
            wall_seconds: what its work is known to have taken over several lives, if that is more.
            core_seconds: the same of processor time.
        """
        wall = max(time.monotonic() - self._clock, wall_seconds)
        return Cost(
            step=self._step,
            id=self._id,
            started=round(self._started, 3),
            wall_seconds=round(wall, 3),
            core_seconds=round(max(_core_seconds() - self._cores, core_seconds), 3),
            gpu_seconds=round(wall * gpus, 3),
        )

    def keep(
        self,
        folder: Path,
        after: Iterable[Path] = (),
        gpus: float = 0,
        wall_seconds: float = 0.0,
        core_seconds: float = 0.0,
    ) -> None:
        """Writes `costs.json` into the step's output folder, once that is made.

        Args:
            folder: where the output is; made if it is not there.
            after: folders that it was made from; their costs are handed on.
            gpus: as of `cost`, and so are the rest.
            wall_seconds: see `cost`.
            core_seconds: see `cost`.
        """
        own = self.cost(gpus, wall_seconds, core_seconds)
        costs = [*read_costs(*after), own]
        folder.mkdir(parents=True, exist_ok=True)
        write_json_atomic(folder / COSTS, {"costs": [cost.model_dump() for cost in costs]})


def read_costs(*folders: Path) -> list[Cost]:
    """The costs that folders carry, each once; none of a folder that has no account, or none that can be read."""
    found: dict[str, Cost] = {}
    for folder in folders:
        try:
            entries = json.loads((folder / COSTS).read_text())["costs"]
            costs = [Cost.model_validate(entry) for entry in entries]
        except (OSError, ValueError, KeyError, TypeError, ValidationError):
            continue
        found |= {cost.id: cost for cost in costs if cost.id not in found}
    return list(found.values())


def charged(board: Leaderboard, rung: str, folders: Sequence[Path], own: Cost | None = None) -> Leaderboard:
    """The board with what a rung cost: what its folders carry, and the step's own.

    Args:
        board: so far.
        rung: empty before the first one.
        folders: that the rung's rows were made from.
        own: of the step that adds the rows.
    """
    ledger = board.ledger or Ledger()
    known = {(charge.rung, charge.id) for charge in ledger.charges}
    costs = [*read_costs(*folders), *([own] if own is not None else [])]
    new = [
        Charge(**cost.model_dump(), rung=rung)
        for cost in costs
        # Every rung's models come from what `fetch` brought; it is no part of their cost.
        if (rung, cost.id) not in known and (cost.step != FETCH or not rung)
    ]
    return board.model_copy(update={"ledger": ledger.model_copy(update={"charges": [*ledger.charges, *new]})})


def _core_seconds() -> float:
    """Processor time of this process, its threads, and its children that ended, in seconds."""
    own, children = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return own.ru_utime + own.ru_stime + children.ru_utime + children.ru_stime
