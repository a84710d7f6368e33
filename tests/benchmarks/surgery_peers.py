"""Side by side: how many of the table's graphs and of the stock detectors each tool makes buildable for TensorRT-RTX.

``python tests/benchmarks/surgery_peers.py [--weights FOLDER] [--json FILE]``. The tools are hasten, onnxslim, onnxsim
and ``polygraphy surgeon sanitize --fold-constants``, each run by its command line, taking turns on every graph. The
peers live in an environment of their own (``.hasten/peers``), which is made where it is missing.
"""

import argparse
import json
import multiprocessing
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import version
from multiprocessing.connection import Connection
from pathlib import Path

sys.path[:0] = [str(Path(__file__).parents[1] / "components" / "surgery"), str(Path(__file__).parents[2])]
sys.path.append(str(Path(__file__).parent))

import numpy as np  # noqa: E402
import onnx  # noqa: E402
from surgery_cases import SEEDS, Case, cases  # noqa: E402
from surgery_graphs import rtx  # noqa: E402

from components.core.machine import cpu_model, usable_cores  # noqa: E402
from components.core.onnx_files import save_onnx  # noqa: E402
from components.surgery.evaluate import EvaluationError, Model  # noqa: E402
from components.surgery.feeds import dimensions, feed, inputs_of  # noqa: E402
from components.surgery.proof import difference  # noqa: E402

PACKAGES = ("onnxslim", "onnxsim", "polygraphy")
TIME_LIMIT = 120.0
"""Seconds a tool gets for one graph."""
TOLERANCE = 1e-4
"""Relative; peers fuse operators, which moves the last digits."""
_APART = multiprocessing.get_context("forkserver")
"""For processes of their own, since the builder may crash; each is a copy of one that has imported everything."""
Feeds = Callable[[np.random.Generator], dict[str, np.ndarray]]


@dataclass(frozen=True)
class Attempt:
    """What one tool made of one graph."""

    graph: str
    row: int
    tool: str
    seconds: float
    builds: bool
    equal: bool
    """Whether ONNX Runtime runs it and gives the same outputs as for the graph before, or as the case says."""
    words: str


def main() -> None:
    """Runs the comparison and prints two Markdown tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--weights", type=Path, help="folder of `stock_detectors.py`: adds the five detectors")
    parser.add_argument("--classes", type=int, default=4, help="classes of these weights, background included")
    parser.add_argument("--rows", type=int, nargs="*", help="rows to run; default: all")
    parser.add_argument("--per-row", type=int, default=2, help="graphs of each row, the first so many")
    parser.add_argument("--peers", type=Path, default=Path(".hasten/peers"), help="environment of the peers")
    parser.add_argument("--json", type=Path, help="every attempt; what such a file has is not done again")
    arguments = parser.parse_args()
    tools = _tools(arguments.peers)
    _APART.set_forkserver_preload(["__main__", "tensorrt_rtx"])
    attempts = _kept(arguments.json)
    done = {attempt.graph for attempt in attempts}
    with tempfile.TemporaryDirectory() as folder:
        for row, listed in cases().items():
            if arguments.rows is None or row in arguments.rows:
                for number, case in enumerate(listed[: arguments.per_row]):
                    name = f"row {row}, {case.name}"
                    if name in done:
                        continue
                    attempts += _compete(name, row, case.model(), case, tools, Path(folder) / f"{row}-{number}")
                    _keep(attempts, arguments.json)
        if arguments.weights:
            for name, model in _detectors(arguments.weights, arguments.classes):
                if name in done:
                    continue
                attempts += _compete(name, 0, model, None, tools, Path(folder) / name)
                _keep(attempts, arguments.json)
    _print(attempts, list(tools), arguments.peers)


def _kept(file: Path | None) -> list[Attempt]:
    """What an earlier run wrote."""
    return [Attempt(**one) for one in json.loads(file.read_text())] if file and file.exists() else []


def _keep(attempts: Sequence[Attempt], file: Path | None) -> None:
    """Writes what there is, so that a run that is stopped has not been for nothing."""
    if file:
        file.write_text(json.dumps([asdict(attempt) for attempt in attempts], indent=2) + "\n")


def _tools(peers: Path) -> dict[str, Callable[[Path, Path], list[str]]]:
    if not (peers / "bin" / "polygraphy").exists():
        subprocess.run([sys.executable, "-m", "venv", str(peers)], check=True)
        install = [str(peers / "bin" / "python"), "-m", "pip", "install", "-q", *PACKAGES]
        subprocess.run([*install, "onnx", "onnxruntime", "onnx-graphsurgeon"], check=True)
    found = peers.resolve() / "bin"
    hasten = [sys.executable, "-m", "pipelines.cli.main", "surgery"]
    return {
        "untouched": lambda given, made: ["cp", str(given), str(made)],
        # It would also ask parser and builder, which the others do not: here all are judged by `_VERDICT` afterwards.
        "hasten surgery": lambda given, made: [
            *(*hasten, str(given), "--runtime", "tensorrt-rtx", "--no-build", "--out", str(made.parent / "h"))
        ],
        "onnxslim": lambda given, made: [str(found / "onnxslim"), str(given), str(made)],
        "onnxsim": lambda given, made: [str(found / "onnxsim"), str(given), str(made)],
        "polygraphy surgeon sanitize": lambda given, made: [
            *(str(found / "polygraphy"), "surgeon", "sanitize", str(given), "--fold-constants", "-o", str(made))
        ],
    }


def _detectors(weights: Path, classes: int) -> Iterator[tuple[str, onnx.ModelProto]]:
    import torch
    from stock_detectors import FACTORIES, IMAGE_SIZE, trained

    from components.export.onnx_export import StockDetector, export_onnx

    for name in FACTORIES:
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "stock.onnx"
            torch.manual_seed(0)
            image = torch.rand(1, 3, *IMAGE_SIZE)
            export_onnx(StockDetector(trained(name, classes, weights)), image, path, dynamic_detections=True)
            model = onnx.load(path)
        yield name, model


def _compete(
    name: str,
    row: int,
    model: onnx.ModelProto,
    case: Case | None,
    tools: dict[str, Callable[[Path, Path], list[str]]],
    folder: Path,
) -> list[Attempt]:
    folder.mkdir(parents=True)
    given = folder / "given.onnx"
    save_onnx(model, given)
    attempts = []
    for number, (tool, command) in enumerate(tools.items()):
        made = folder / str(number) / "model.onnx"
        made.parent.mkdir()
        started = time.monotonic()
        words = _run(command(given, made))
        seconds = time.monotonic() - started
        if tool == "hasten surgery":
            made = made.parent / "h" / "tensorrt-rtx" / "model.onnx"
        builds, equal = False, False
        if made.exists():
            words = _verdict(made)
            builds = not words
            equal = tool == "untouched" or _equal(model, onnx.load(made), case)
        attempts.append(Attempt(name, row, tool, round(seconds, 2), builds, equal, words[:300]))
        print(f"{name}: {tool}: {'builds' if builds else 'does not build'} {words[:80]}", file=sys.stderr, flush=True)
    return attempts


def _verdict(made: Path) -> str:
    """Why TensorRT-RTX does not build a file without plugins; empty where it does."""
    receiver, sender = _APART.Pipe(duplex=False)
    process = _APART.Process(target=_judge, args=(made, sender))
    process.start()
    sender.close()
    try:
        words: str = receiver.recv() if receiver.poll(TIME_LIMIT) else f"stopped after {TIME_LIMIT:.0f} s"
    except EOFError:
        process.join()
        words = f"the builder ended with code {process.exitcode}"
    process.kill()
    process.join()
    return words


def _judge(made: Path, sender: Connection) -> None:
    verdict = rtx(onnx.load(made))
    sender.send("" if verdict.stage == "ok" and not verdict.plugins else verdict.words or "plugins")


def _run(command: Sequence[str]) -> str:
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=TIME_LIMIT, check=False)
    except subprocess.TimeoutExpired:
        return f"stopped after {TIME_LIMIT:.0f} s"
    return "" if done.returncode == 0 else f"exit code {done.returncode}: {done.stderr.strip()[-200:]}"


def _equal(before: onnx.ModelProto, after: onnx.ModelProto, case: Case | None) -> bool:
    """Whether outputs agree; detectors are judged by `whole_models.py` and not on noise.

    They agree with the model before, or with what the case says that it means, such as the same in FP32.
    """
    if case is None:
        return True
    try:
        new = Model(after)
    except EvaluationError:
        return False
    judges: list[Callable[[], Callable[..., dict[str, np.ndarray]]]] = [lambda: Model(before)]
    judges += [lambda: case.reference] if case.reference else []
    return any(_agrees(judge, before, after, new, case) for judge in judges)


def _agrees(
    judge: Callable[[], Callable[..., dict[str, np.ndarray]]],
    before: onnx.ModelProto,
    after: onnx.ModelProto,
    new: Model,
    case: Case,
) -> bool:
    given = inputs_of(before, after)
    rngs = [np.random.default_rng(seed) for seed in SEEDS]
    sizes = dimensions(given)[:3]
    feeds = (
        [case.feeds(rng) for rng in rngs]
        if case.feeds
        else [feed(given, seed, size) for size in sizes for seed in SEEDS]
    )
    compared = 0
    try:
        old = judge()
        for inputs in feeds:
            try:
                expected = old(inputs)
            except EvaluationError:
                continue
            found = new({name: inputs[name] for name in (value.name for value in after.graph.input) if name in inputs})
            compared += 1
            limit = max(TOLERANCE, case.tolerance)
            if any(difference(expected[name], found[name], padded=True) > limit for name in expected):
                return False
        return compared > 0
    except (EvaluationError, KeyError):
        return False


def _print(attempts: Sequence[Attempt], tools: Sequence[str], peers: Path) -> None:
    rows = sorted({attempt.row for attempt in attempts if attempt.row})
    graphs = [attempt for attempt in attempts if attempt.row]
    models = [attempt for attempt in attempts if not attempt.row]
    heads = ("tool", "rows", "graphs", "of which not shown to be equal", "detectors", "s a graph", "s a detector")
    print("| " + " | ".join(heads) + " |\n" + "|---" * len(heads) + "|")
    for tool in tools:
        own = [attempt for attempt in graphs if attempt.tool == tool]
        whole = [attempt for attempt in models if attempt.tool == tool]
        good = [attempt for attempt in own if attempt.builds]
        per_row = sum(all(a.builds and a.equal for a in own if a.row == row) for row in rows)
        cells = (
            tool,
            f"{per_row} of {len(rows)}",
            f"{len(good)} of {len(own)}",
            sum(not attempt.equal for attempt in good),
            f"{sum(attempt.builds for attempt in whole)} of {len(whole)}" if whole else "-",
            _median(own) if tool != "untouched" else "-",
            _median(whole) if tool != "untouched" else "-",
        )
        print("| " + " | ".join(map(str, cells)) + " |")
    pip = [str(peers / "bin" / "python"), "-m", "pip", "list", "--format", "json"]
    listed = json.loads(subprocess.run(pip, capture_output=True, text=True, check=True).stdout)
    versions = ", ".join(f"{entry['name']} {entry['version']}" for entry in listed if entry["name"] in PACKAGES)
    print(
        f"\nSeconds are medians of whole command lines. {usable_cores()} cores {cpu_model()}, no GPU; {versions}, ",
        end="",
    )
    print(f"tensorrt-rtx {version('tensorrt-rtx-cu13')}, Python {platform.python_version()}")


def _median(attempts: Sequence[Attempt]) -> str:
    return f"{statistics.median(attempt.seconds for attempt in attempts):.1f}" if attempts else "-"


if __name__ == "__main__":
    main()
