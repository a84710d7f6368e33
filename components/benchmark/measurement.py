"""`measurement.json`: every call that was timed, and what the machine was like meanwhile."""

import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from components.benchmark.measure import Measured
from components.core.machine import describe


def conditions() -> dict[str, Any]:
    """What else could have disturbed the measurement: load averages and the processors that may be used."""
    affinity = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else []
    return {"time": time.time(), "load_average": list(os.getloadavg()), "affinity": affinity}


def write_measurement(
    out: Path, facts: Mapping[str, Any], before: Mapping[str, Any], results: Mapping[str, Measured]
) -> None:
    """Writes `measurement.json`.

    Args:
        out: folder.
        facts: how it was measured.
        before: `conditions` before the first process started.
        results: id -> what was measured; the raw calls are in milliseconds.
    """
    from components.core.files import write_json_atomic

    calls = {
        name: {"failure": one.failure, "threads": one.entry.threads, "passive": one.entry.passive, **one.raw}
        for name, one in results.items()
    }
    document = {**facts, "environment": describe(), "before": before, "after": conditions(), "results": calls}
    write_json_atomic(out / "measurement.json", document)
