"""Does timing untrained backbones say who is fast once trained, and does a search among them find the best one?

``python tests/benchmarks/backbone_probe.py JOB.yaml --size 160 --kwargs '{"image_size": 160}' --epochs 4``

Every backbone is probed untrained; the search trains the few that it chooses, a third at most; then *all* are trained,
exported and timed again, side by side. Printed: a table, Spearman's rank correlation of the two latencies, whom the
search trained, whether the best of all trained ones is the one that the search hands on, and JSON. The weights are
really trained: how many activations are zero or denormal depends on them.
"""

import argparse
import json
import shutil
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from components.backbone.entrants import entrants
from components.core.contracts.job import Backbone, Job, Precision
from components.core.contracts.search import Probed
from components.core.contracts.variant import Status
from components.core.job_file import read_job
from components.core.machine import describe
from components.core.models import load_torch_model
from components.core.stepping import listening
from components.core.training.bundle import WEIGHTS
from components.core.training.checkpoints import Checkpoints
from components.core.training.task import training_task
from components.fetch.run import run_fetch
from components.searching.dominance import choose
from components.searching.entrant import Entrant, Facts
from components.searching.halving import TRAINED, Raced, Setting, halve, ranked
from components.searching.notes import Notes
from components.searching.probe import probe

CANDIDATES = (
    "timm/lcnet_035",
    "timm/lcnet_100",
    "timm/mobilenetv3_small_100",
    "timm/mobilenetv2_050",
    "timm/mobilenetv3_large_100",
    "timm/efficientnet_lite0",
    "timm/resnet10t",
    "timm/resnet18",
    "timm/resnet34",
)


def main() -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("job", type=Path, help="a detection job with a factory; its data and heads are used")
    parser.add_argument("--candidates", nargs="+", default=list(CANDIDATES), help="at least 8")
    parser.add_argument("--size", type=int, default=160, help="height and width of the input in pixels")
    parser.add_argument("--kwargs", type=json.loads, default={}, help="of the factory, as JSON, on top of the job's")
    parser.add_argument("--epochs", type=int, default=2)
    parser.add_argument("--runtimes", nargs="+", default=["onnxruntime"])
    parser.add_argument("--int8", action="store_true", help="probe in INT8 too")
    parser.add_argument("--rounds", type=int, default=6)
    given = parser.parse_args()
    job = prepared(read_job(given.job), given)
    began = time.perf_counter()

    def say(message: str, _done: float | None, _total: float | None) -> None:
        if message.startswith(("making", "timing", "round 1 of", "warming")):
            print(f"{time.perf_counter() - began:6.0f} s  {message}", file=sys.stderr, flush=True)

    with tempfile.TemporaryDirectory() as folder, listening(say):
        found = measure(job, Path(folder))
    print(table(found))
    print(json.dumps(found | {"environment": describe(), "seconds": round(time.perf_counter() - began)}, indent=2))


def prepared(job: Job, given: argparse.Namespace) -> Job:
    """The job at another input size, with a third of the candidates to train."""
    candidates = given.candidates
    fields = job.model_dump(mode="json")
    fields["target"] |= {"input_shape": [1, 3, given.size, given.size], "runtimes": given.runtimes, "threads": 1}
    fields["model"]["kwargs"] |= given.kwargs
    fields["training"] |= {"epochs": given.epochs, "precision": "fp32", "batch": 4, "learning_rate": 1e-3}
    job = Job.model_validate_json(json.dumps(fields))
    settings = Backbone.model_validate(
        {
            "candidates": candidates,
            "keep": max(len(candidates) // 3, 1),
            "halving_rounds": 2,
            "probe_int8": given.int8,
            "probe_rounds": given.rounds,
        }
    )
    return job.model_copy(update={"backbone": settings})


def measure(job: Job, folder: Path) -> dict[str, Any]:
    """All numbers."""
    bundle = folder / "bundle"
    run_fetch(job, bundle)
    everyone, settings = entrants(job, bundle), job.backbone
    work = folder / "untrained"
    untrained = probe(job, bundle, everyone, settings, work, notes_of(folder, "untrained"))
    usable = [one for one in everyone if status_of(untrained, one) is Status.OK]
    decisions = choose(untrained, job.goal, settings.slack, settings.keep)
    chosen = [one for one in usable if any(each.trains and each.id == one.id for each in decisions)]
    before = training_task(job, bundle).evaluate(load_torch_model(job.model, bundle / "model"), "cpu") or {}
    wanted = before[str(job.goal.metric)] - job.goal.max_accuracy_drop if before else None
    search = raced(chosen, untrained, "search", settings.halving_rounds, work, folder, wanted)

    # The truth, which nobody would pay for: all of them trained to the end, exported and timed again.
    complete = raced(usable, untrained, "all", 1, work, folder, wanted)
    known = [trained_again(one, work, folder) for one in usable if complete.rounds[one.id][-1].steps]
    final = probe(job, bundle, known, settings, folder / "trained", notes_of(folder, "trained"))
    by_id = {one.id: one for one in final if one.status is Status.OK}
    metric = str(job.goal.metric)
    accuracies = {name: (complete.rounds[name][-1].accuracy or {}).get(metric) for name in by_id}
    order = ranked(list(by_id), accuracies, by_id, job, wanted)
    ratios = {one.id: (ratio(one), ratio(by_id[one.id])) for one in untrained if one.id in by_id}
    return {
        "spearman": round(spearman([one for one, _ in ratios.values()], [other for _, other in ratios.values()]), 4),
        "backbones": len(ratios),
        "trained_by_search": [one.id for one in chosen],
        "search_winner": search.finalists[0] if search.finalists else "",
        "best_of_all": order[0] if order else "",
        "wanted_accuracy": wanted,
        "rows": [
            {
                "id": name,
                "untrained_ratio": round(one, 3),
                "trained_ratio": round(other, 3),
                "untrained_p50_ms": p50(next(each for each in untrained if each.id == name)),
                "trained_p50_ms": p50(by_id[name]),
                metric: accuracies[name],
            }
            for name, (one, other) in sorted(ratios.items(), key=lambda each: -each[1][1])
        ],
        "decisions": {one.id: one.reason for one in decisions},
    }


def raced(
    entrants_: Sequence[Entrant],
    probed: Sequence[Probed],
    name: str,
    rounds: int,
    work: Path,
    folder: Path,
    wanted: float | None,
) -> Raced:
    """A halving of its own, under its own name."""
    setting = Setting(rounds, Precision.FP32, "cpu", f"{name} {folder}")
    return halve(entrants_, {one.id: one for one in probed}, setting, work, notes_of(folder, name), wanted)


def trained_again(entrant: Entrant, work: Path, folder: Path) -> Entrant:
    """The entrant with its trained weights for first ones."""
    kept = folder / "weights" / f"{entrant.id}.safetensors"
    kept.parent.mkdir(exist_ok=True)
    shutil.copyfile(work / entrant.id / TRAINED / WEIGHTS, kept)

    def prepare(path: Path) -> Facts:
        shutil.copyfile(kept, path)
        return Facts()

    return replace(entrant, prepare=prepare)


def notes_of(folder: Path, name: str) -> Notes:
    """Notes of one part."""
    return Notes(Checkpoints(str(folder / f"{name}.pt"), name))


def status_of(probed: Sequence[Probed], entrant: Entrant) -> Status:
    """Of an entrant in the probe."""
    return next(one.status for one in probed if one.id == entrant.id)


def ratio(one: Probed) -> float:
    """Speed-up over the baseline in the same rounds."""
    return one.speedup.ratio if one.speedup else 0.0


def p50(one: Probed) -> float | None:
    """Milliseconds."""
    return round(one.latency_ms.p50, 3) if one.latency_ms else None


def spearman(one: Sequence[float], other: Sequence[float]) -> float:
    """Rank correlation (Spearman 1904); equal values share their mean rank."""
    from scipy.stats import spearmanr

    return float(spearmanr(one, other).statistic)


def table(found: dict[str, Any]) -> str:
    """Markdown."""
    columns = list(found["rows"][0])
    lines = [f"| {' | '.join(columns)} | trained by the search |", f"|{'---|' * (len(columns) + 1)}"]
    for row in found["rows"]:
        mark = (
            "winner"
            if row["id"] == found["search_winner"]
            else "yes"
            if row["id"] in found["trained_by_search"]
            else ""
        )
        lines.append(f"| {' | '.join(str(row[name]) for name in columns)} | {mark} |")
    hit = "is" if found["search_winner"] == found["best_of_all"] else "is NOT"
    return "\n".join(
        [
            *lines,
            "",
            f"Spearman {found['spearman']} on {found['backbones']} backbones; the search trained "
            f"{len(found['trained_by_search'])} of them, and its winner {found['search_winner']} {hit} the best of "
            f"all, {found['best_of_all']}.",
            "",
        ]
    )


if __name__ == "__main__":
    main()
