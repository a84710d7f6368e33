"""`hasten simulate`: what a fleet would cost on a cluster, from the measured times of real runs."""

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from pipelines.cli.app import app

if TYPE_CHECKING:
    from pipelines.simulation.summary import Summary

MODES = ("stop-when-met", "exhaustive")
_SHOWN = 5


@app.command(rich_help_panel="On a Kubeflow cluster")
def simulate(
    runs: Annotated[
        list[Path],
        typer.Argument(
            metavar="RUN.json...", help="`run.json` of finished runs, or their folders.", show_default=False
        ),
    ],
    models: Annotated[int, typer.Option(min=1, max=10_000, help="Models that climb.")] = 200,
    gpus: Annotated[int, typer.Option(min=1, max=10_000, help="GPUs of the cluster.")] = 4,
    cpu_pods: Annotated[int, typer.Option(min=1, help="CPU pods at a time.")] = 64,
    parallelism: Annotated[int, typer.Option(min=1, help="Models at a time, as `parallelism` of a fleet.")] = 32,
    pod_start: Annotated[str, typer.Option(help="Median time that a pod takes to start.")] = "30 s",
    preempt_every: Annotated[
        str,
        typer.Option(help="Mean time until a spot GPU is taken away, e.g. `6 h`. Default: never.", show_default=False),
    ] = "",
    gpu_speed: Annotated[
        float, typer.Option(min=0.01, help="How much faster GPU steps run there than where they were measured.")
    ] = 1.0,
    met: Annotated[
        list[str] | None,
        typer.Option(
            help="`RUNG=SHARE` of models that meet their goal there. Default: as in the runs.", show_default=False
        ),
    ] = None,
    seed: Annotated[int, typer.Option(help="Of all chance: the same seed, the same numbers.")] = 7,
    as_json: Annotated[bool, typer.Option("--json", help="Print the numbers as JSON on stdout.")] = False,
) -> None:
    """Simulate the ladder of many models on a cluster: GPU-hours of both modes, and where the queue forms.

    Step times are those that the runs measured; pod starts, queueing, spot preemption and retries are simulated. Give
    runs in mode `exhaustive`, or the modes differ by nothing.

    **Examples**

    `hasten simulate runs/trees/run.json --models 200 --gpus 4`

    `hasten simulate runs/a runs/b --gpus 8 --preempt-every "6 h" --met int8=0.6 --met fp16=0.1`
    """
    from components.core.errors import UserError

    try:
        import simpy  # noqa: F401
    except ImportError as error:
        raise UserError("hasten simulate needs simpy; install hasten[simulate]") from error
    from pipelines.simulation.cluster import Cluster
    from pipelines.simulation.cluster import simulate as simulate_once
    from pipelines.simulation.measured import read_runs
    from pipelines.simulation.summary import summarize

    measured = read_runs(runs)
    rungs = list(dict.fromkeys(rung for run in measured for rung in run.climbs))
    shares = _shares(met, rungs) if met else None
    cluster = Cluster(
        gpus=gpus,
        cpu_pods=cpu_pods,
        parallelism=parallelism,
        pod_start=_seconds("--pod-start", pod_start),
        preempt_every=_seconds("--preempt-every", preempt_every) if preempt_every else None,
        gpu_speed=gpu_speed,
    )
    found = [
        summarize(
            simulate_once(measured, models, cluster, exhaustive=mode == "exhaustive", seed=seed, shares=shares), mode
        )
        for mode in MODES
    ]
    if as_json:
        print(json.dumps([each.model_dump(mode="json") for each in found], indent=2))
        return
    _show(found, rungs)


def _seconds(option: str, text: str) -> float:
    from pydantic import TypeAdapter, ValidationError

    from components.core.contracts.units import Seconds
    from components.core.errors import UserError

    try:
        return float(TypeAdapter(Seconds).validate_python(text))
    except ValidationError as error:
        words = error.errors()[0]["msg"].removeprefix("Value error, ")
        raise UserError(f"{option}: given {text!r}: {words}") from None


def _shares(given: list[str], rungs: list[str]) -> dict[str, float]:
    from components.core.errors import UserError

    shares: dict[str, float] = {}
    for each in given:
        rung, _, share = each.partition("=")
        try:
            shares[rung] = float(share)
        except ValueError:
            shares[rung] = -1.0
        if rung not in rungs or not 0 <= shares[rung] <= 1:
            raise UserError(
                f"--met: given {each!r}, accepted: RUNG=SHARE with 0..1; rungs of the runs: {', '.join(rungs)}"
            )
    if sum(shares.values()) > 1 + 1e-9:
        raise UserError(f"--met: the shares add up to {sum(shares.values()):g}, which is more than 1")
    return shares


def _show(found: list["Summary"], rungs: list[str]) -> None:
    from rich.console import Console
    from rich.table import Table

    console = Console(highlight=False, width=None if sys.stdout.isatty() else 160)
    table = Table(box=None, header_style="bold")
    table.add_column("")
    for each in found:
        table.add_column(each.mode, justify="right")
    rows = {
        "models: meet their goal / failed": [f"{each.met} / {each.failed} of {each.models}" for each in found],
        "until the last is done": [f"{each.makespan_h:.2f} h" for each in found],
        "GPU-hours": [f"{each.gpu_hours:.2f}" for each in found],
        "  of it work / pod starts / lost": [
            f"{each.gpu_work_h:.2f} / {each.gpu_start_h:.2f} / {each.gpu_lost_h:.2f}" for each in found
        ],
        "GPU utilization": [f"{each.utilization:.0%}" for each in found],
        "mean wait for a GPU": [f"{each.mean_gpu_wait_s:.0f} s" for each in found],
        "longest queue for GPUs": [f"{each.longest_gpu_queue} pods" for each in found],
        "preemptions": [str(each.preemptions) for each in found],
        "CPU pod-hours": [f"{each.cpu_pod_hours:.2f}" for each in found],
    }
    for name, values in rows.items():
        table.add_row(name, *values)
    console.print(table)
    for each in found:
        waiting = [queue for queue in each.queues if queue.wait_h > 0][:_SHOWN]
        console.print(f"\nWhere the queue forms ({each.mode}):{'' if waiting else ' nowhere'}")
        for queue in waiting:
            place = "GPU" if queue.on_gpu else "CPU"
            console.print(
                f"  {place} {queue.rung or 'baseline'} / {queue.step}: {queue.share:.0%} of all waiting, mean "
                f"{queue.mean_wait_s:.0f} s, p95 {queue.p95_wait_s:.0f} s, {queue.pods} pods"
            )
    console.print(
        f"\nRungs with measured times: {', '.join(rungs) or 'none'}. Other rungs are left out.", soft_wrap=True
    )
