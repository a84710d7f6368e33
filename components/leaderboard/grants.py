"""The limits that a training is given out of the budget, remembered, so that they do not undo the step cache.

A limit is an input of the training step and so a part of its cache key; what is left of a budget never is the same
twice. So the limits that were given are kept beside the bundle, and given again: always in the same run, which may have
been killed and taken up again, and in a later one with the same budget as long as they fit into what is left of it.
"""

import hashlib
import json
import math
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from components.core.contracts.base import Contract
from components.core.contracts.job import Job, Rung
from components.core.contracts.leaderboard import Leaderboard
from components.core.files import write_json_atomic
from components.core.s3 import S3, cache_folder, parse_s3
from components.core.storage import is_remote
from components.leaderboard.budget import limits, training_limits


class Grant(Contract):
    """What a training was given, in seconds by the names of the limits."""

    run_id: str
    amounts: dict[str, float]


def with_limits(
    training: Job, rung: Rung, board: Leaderboard, job: Job, since: float | None, bundle_uri: str, run_id: str
) -> Job:
    """The training's job with the limits of the budget; unchanged where the job sets none.

    Args:
        training: what the training step gets.
        rung: that trains.
        board: with the ledger so far.
        job: with the budget.
        since: Unix time in seconds at which the run began.
        bundle_uri: what is trained on; the grant is kept beside it in S3, and in the cache on this machine.
        run_id: of this run.
    """
    if not limits(job):
        return training
    offered = training_limits(board, rung, job, since)
    facts = [str(rung), training.model_dump(mode="json"), bundle_uri, limits(job)]
    key = hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:32]
    place = _place(key, bundle_uri)
    before = _read(place)
    if before is not None and (before.run_id == run_id or _fits(before.amounts, offered)):
        amounts = before.amounts
    else:
        amounts = offered
    _write(place, Grant(run_id=run_id, amounts=amounts))
    return _limited(training, amounts)


def _limited(training: Job, amounts: dict[str, float]) -> Job:
    settings = training.training
    wall = [settings.max_time, amounts.get("max_time")]
    if "max_gpu_time" in amounts:  # a process has one GPU
        wall.append(amounts["max_gpu_time"] / settings.processes)
    update = {
        "max_time": _smallest(wall),
        "max_core_time": _smallest([settings.max_core_time, amounts.get("max_core_time")]),
    }
    return training.model_copy(update={"training": settings.model_copy(update=update)})


def _smallest(values: list[float | None]) -> float | None:
    """Whole seconds, at least one; None where there is no limit."""
    given = [value for value in values if value is not None]
    return max(float(math.floor(min(given))), 1.0) if given else None


def _fits(amounts: dict[str, float], offered: dict[str, float]) -> bool:
    return all(amounts[name] <= offered[name] for name in offered if name in amounts)


def _place(key: str, bundle_uri: str) -> str:
    if is_remote(bundle_uri):
        return f"{bundle_uri.rstrip('/')}-checkpoints/grant-{key}.json"
    return str(cache_folder() / "training" / f"grant-{key}.json")


def _read(place: str) -> Grant | None:
    content: Any
    try:
        if is_remote(place):
            location, store = parse_s3(place), S3()
            if store.find(location) is None:
                return None
            with store.explained(place):
                content = store.client.get_object(Bucket=location.bucket, Key=location.key)["Body"].read()
        else:
            content = Path(place).read_bytes()
        return Grant.model_validate_json(content)
    except (OSError, ValidationError):
        return None


def _write(place: str, grant: Grant) -> None:
    if not is_remote(place):
        Path(place).parent.mkdir(parents=True, exist_ok=True)
        write_json_atomic(Path(place), grant.model_dump())
        return
    location, store = parse_s3(place), S3()
    with store.explained(place):
        store.client.put_object(Bucket=location.bucket, Key=location.key, Body=grant.model_dump_json().encode())
