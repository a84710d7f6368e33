"""A search that is killed, in a process of its own: ``search_lives.py FOLDER WHERE``; WHERE is a message to die at."""

import json
import os
import signal
import sys
from pathlib import Path

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE.parents[2]), str(HERE.parents[1])]

from components.core.contracts.job import Job, Search  # noqa: E402
from components.core.stepping import listening  # noqa: E402
from components.searching.run import run_search  # noqa: E402
from fixtures.search_jobs import broken, sized  # noqa: E402

SETTINGS = Search(keep=2, halving_rounds=2, probe_rounds=3, probe_round_time="0.05 s", probe_int8=False)  # type: ignore[arg-type]


def main(folder: Path, where: str) -> None:
    """Searches among three; prints what it said."""
    job = Job.model_validate_json((folder / "job.json").read_text())

    def die(message: str, _done: float | None, _total: float | None) -> None:
        print(message, flush=True)
        if where and message.startswith(where):
            os.kill(os.getpid(), signal.SIGKILL)

    with listening(die):
        card, _ = run_search(
            "family",
            job,
            folder / "bundle",
            folder / "out",
            SETTINGS,
            lambda given, _bundle: [sized(given, 0), broken(given), sized(given, 4)],
        )
    print(json.dumps(card.model_dump(mode="json")))


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2])
