"""Side by side: eager, torch.compile, FP32 runtimes, hasten's INT8 and that of other tools, on the models of `zoo`.

``python tests/benchmarks/bench_peers.py [--models resnet18 ...] [--json FILE] [--markdown FILE]``. Every tool
quantizes in an environment of its own under ``.hasten/peers``, which is made where it is missing; one that fails is a
row with its error. Every result is kept there: a run that was cut off goes on where it stopped, and ``--again`` starts
anew.

Files of all tools run in hasten's own ONNX Runtime and OpenVINO, one process each, in alternating rounds. Beside
the clock the processor time of a call is taken, which others on the machine disturb less; ratios are of it.
"""

import argparse
import json
import os
import platform
import shutil
import sys
import time
from importlib.metadata import version
from pathlib import Path
from typing import Any

_HERE = Path(__file__).parent
sys.path[:0] = [str(_HERE / "peers"), str(_HERE.parents[1])]

from cells import CONTROL, HASTEN, PEERS, cell  # noqa: E402
from environments import versions  # noqa: E402
from racing import cached_race, race_model  # noqa: E402
from tables import markdown  # noqa: E402
from zoo import NAMES, make  # noqa: E402

from components.benchmark.rounds import Pace  # noqa: E402
from components.core.machine import cpu_model, usable_cores  # noqa: E402


def main() -> None:
    """Makes what is missing, races, and writes the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="*", choices=NAMES, default=list(NAMES))
    parser.add_argument("--tools", nargs="*", choices=(*PEERS, CONTROL, HASTEN), default=[*PEERS, HASTEN])
    parser.add_argument("--rounds", type=int, default=8, help="rounds, each alternating between all")
    parser.add_argument("--round-time", type=float, default=0.3, help="seconds of one competitor in a round")
    parser.add_argument("--threads", type=int, default=1, help="CPU threads of each")
    parser.add_argument("--time-limit", type=float, default=1800, help="seconds a tool gets for one model")
    parser.add_argument("--peers", type=Path, default=Path(".hasten/peers"), help="environments, models and results")
    parser.add_argument("--samples", type=Path, default=Path(".hasten/samples"), help="photographs and detectors")
    parser.add_argument("--json", type=Path, default=_HERE / "peers.json")
    parser.add_argument("--markdown", type=Path, default=_HERE / "peers.md")
    parser.add_argument("--again", action="store_true", help="forget the results that are kept")
    arguments = parser.parse_args()
    if arguments.again:
        shutil.rmtree(arguments.peers / "cells", ignore_errors=True)
    started = time.monotonic()
    pace = Pace(arguments.rounds, arguments.round_time, 0)
    models: dict[str, Any] = {}
    for number, name in enumerate(arguments.models):

        def say(words: str, at: str = f"{number + 1}/{len(arguments.models)} {name}") -> None:
            print(f"[{time.monotonic() - started:6.0f} s] {at}: {words}", file=sys.stderr, flush=True)

        try:
            models[name] = _model(name, arguments, pace, say)
        except Exception as error:  # one model's failure is a line of the table
            models[name] = {"error": " ".join(f"{type(error).__name__}: {error}".split())[:300]}
            say(models[name]["error"])
        document = {"machine": _machine(arguments), "models": models}
        arguments.json.write_text(json.dumps(document, indent=1) + "\n")
        arguments.markdown.write_text(markdown(document))
    print(arguments.markdown.read_text())


def _model(name: str, arguments: argparse.Namespace, pace: Pace, say: Any) -> dict[str, Any]:
    say("making the model")
    model = make(name, arguments.peers / "models", arguments.samples)
    made = {}
    for tool in arguments.tools:
        say(f"quantizing with {tool}")
        made[tool] = cell(model, tool, arguments.peers / "cells", arguments.peers, arguments.time_limit)
    key = {"made": {tool: one.get("file", "") + str(one.get("seconds", "")) for tool, one in made.items()}}
    key |= {"rounds": pace.rounds, "seconds": pace.seconds, "threads": arguments.threads}
    folder = arguments.peers / "cells" / name

    def fresh() -> list[dict[str, Any]]:
        before = os.getloadavg()[0]
        rows = race_model(
            model, made, arguments.samples, folder / "race", arguments.threads, pace, lambda words, *_: say(words)
        )
        load = {"load_before": before, "load_after": os.getloadavg()[0]}
        return [row | load for row in rows]

    return {"metric": model.facts["metric"], "rows": cached_race(folder / "race.json", fresh, key)}


def _machine(arguments: argparse.Namespace) -> dict[str, Any]:
    packages = ("torch", "onnxruntime", "openvino", "nncf", "onnx")
    return {
        "cpu": cpu_model(),
        "cores": usable_cores(),
        "threads": arguments.threads,
        "python": platform.python_version(),
        "versions": {name: version(name) for name in packages},
        "peers": versions(arguments.peers),
        "rounds": arguments.rounds,
        "round_time": arguments.round_time,
    }


if __name__ == "__main__":
    main()
