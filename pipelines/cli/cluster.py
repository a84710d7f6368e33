"""`hasten submit` and `hasten schedule`: the ladder on a Kubeflow cluster."""

import json
import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from pipelines.cli.app import app

if TYPE_CHECKING:
    from components.core.contracts.job import Job
    from pipelines.cluster.connection import Server

PANEL = "On a Kubeflow cluster"
EXIT_GOAL_NOT_MET = 3
JobFile = Annotated[Path, typer.Argument(metavar="JOB.yaml", help="The job; its files are `s3://` URIs.")]
Host = Annotated[
    str,
    typer.Option(
        envvar="KF_PIPELINES_ENDPOINT",
        help="Address of Kubeflow Pipelines, e.g. `http://localhost:8080`.",
        show_default=False,
    ),
]
Namespace = Annotated[str, typer.Option(help="Your profile's namespace, where Kubeflow serves several users.")]
TokenFile = Annotated[
    Path | None, typer.Option(help="File with a bearer token. Default: `$HASTEN_KFP_TOKEN`.", show_default=False)
]
CaCert = Annotated[Path | None, typer.Option(help="CA certificates of the server.", show_default=False)]
Gpus = Annotated[int, typer.Option(min=0, help="GPUs of engine builds and benchmarks; 0: on a CPU node.")]
GpuResource = Annotated[str, typer.Option(help="Kubernetes' name of the GPU, e.g. `nvidia.com/mig-1g.10gb`.")]
GpuProduct = Annotated[
    str,
    typer.Option(
        help="GPU that the model is deployed on: the node label `nvidia.com/gpu.product`.", show_default=False
    ),
]
GpuImage = Annotated[str, typer.Option(help="Image of engine builds and benchmarks.", show_default=False)]
Account = Annotated[
    str,
    typer.Option(
        "--service-account", help="Account that the steps run under. Default: the server's.", show_default=False
    ),
]
Json = Annotated[bool, typer.Option("--json", help="Print the result as JSON on stdout.")]


@app.command(rich_help_panel=PANEL)
def submit(
    job_file: JobFile,
    host: Host = "",
    namespace: Namespace = "",
    token_file: TokenFile = None,
    ca_cert: CaCert = None,
    mode: Annotated[str, typer.Option(help="`stop-when-met` or `exhaustive`. Default: as the job says.")] = "",
    rungs: Annotated[str, typer.Option(help="Comma-separated, e.g. `int8,fp16`. Default: as the job says.")] = "",
    gpus: Gpus = 0,
    gpu_resource: GpuResource = "nvidia.com/gpu",
    gpu_product: GpuProduct = "",
    gpu_image: GpuImage = "",
    account: Account = "",
    wait: Annotated[bool, typer.Option("--wait/--no-wait", help="Follow the run to its end.")] = True,
    as_json: Json = False,
) -> int:
    """Climb the ladder on a Kubeflow cluster; follows the run and prints the leaderboard.

    A fleet (`FLEET.yaml`, see `hasten fleet --help`) is one run that starts a run a model, so many at a time; a model
    that fails is a row of its table. The pipeline is uploaded once for each version of hasten. Ctrl-C stops following
    and not the run.

    **Examples**

    `hasten submit job.yaml --host http://localhost:8080 --namespace team-a`

    `hasten submit job.yaml --gpus 1 --gpu-product NVIDIA-L4 --no-wait`

    **Exit codes**: 0 goal met (or, with `--no-wait`, accepted), 3 goal not met, 2 bad input, 1 the run failed.
    """
    from pipelines.cluster.connection import connect
    from pipelines.cluster.outcome import published_board
    from pipelines.cluster.pipeline import gpu_arguments
    from pipelines.cluster.runs import follow
    from pipelines.cluster.runs import submit as start
    from pipelines.fleet.contract import is_fleet
    from pipelines.ladder.recipe import overridden

    if is_fleet(job_file):
        if mode or rungs:
            raise typer.BadParameter(
                "a fleet's jobs say their own; write it into `defaults` of the fleet file", param_hint="--mode, --rungs"
            )
        server = _server(host, namespace, token_file, ca_cert)
        gpu = gpu_arguments(gpus, gpu_resource, gpu_product, gpu_image)
        return _submit_fleet(job_file, server, gpu, account, wait, as_json)
    job, server = overridden(_job(job_file), mode, rungs), _server(host, namespace, token_file, ca_cert)
    gpu = gpu_arguments(gpus, gpu_resource, gpu_product, gpu_image)
    client = connect(server)
    submitted = start(client, server, job, gpu, f"hasten submit {shlex.quote(str(job_file))}", account)
    print(f"run {submitted.run_id}: {submitted.url}", file=sys.stderr)
    if not wait:
        if as_json:
            print(json.dumps({"run_id": submitted.run_id, "url": submitted.url}))
        return 0
    try:
        ended = follow(client, server, submitted.run_id, lambda line: print(line, file=sys.stderr, flush=True))
    except KeyboardInterrupt:
        print(f"hasten: no longer following; the run goes on: {submitted.url}", file=sys.stderr)
        return 130
    if ended.state != "SUCCEEDED":
        print(f"hasten: the run ended {ended.state.lower()}: {ended.why or 'see ' + submitted.url}", file=sys.stderr)
        return 1
    board, why = published_board(job)
    if as_json:
        facts: dict[str, Any] = {"run_id": submitted.run_id, "url": submitted.url, "state": ended.state}
        print(json.dumps(facts | {"board": board.model_dump(mode="json") if board else None, "note": why}))
    elif board is not None:
        from rich.console import Console

        from pipelines.cli.live import board_table

        Console(highlight=False, width=None if sys.stdout.isatty() else 160).print(
            board_table(board.model_dump(mode="json"))
        )
        print(f"{'Goal met.' if board.goal_met else 'Goal not met.'} Winner: {board.winner or 'none'}. {board.why}")
    else:
        print(f"the run succeeded; {why}: {submitted.url}")
    return EXIT_GOAL_NOT_MET if board is not None and not board.goal_met else 0


def _submit_fleet(
    fleet_file: Path, server: "Server", gpu: dict[str, object], account: str, wait: bool, as_json: bool
) -> int:
    from pipelines.cli.fleet import exit_code, show_summary
    from pipelines.cluster.connection import connect
    from pipelines.cluster.runs import follow
    from pipelines.fleet.contract import read_fleet
    from pipelines.fleet.submitting import submit_fleet, summary_of

    fleet, _ = read_fleet(fleet_file)
    client = connect(server)
    run, stamp = submit_fleet(client, server, fleet, gpu, account)
    print(f"run {run.run_id} of {len(fleet.jobs)} models, stamp {stamp}: {run.url}", file=sys.stderr)
    if not wait:
        if as_json:
            print(json.dumps({"run_id": run.run_id, "url": run.url, "stamp": stamp}))
        return 0
    try:
        ended = follow(client, server, run.run_id, lambda line: print(line, file=sys.stderr, flush=True))
    except KeyboardInterrupt:
        print(f"hasten: no longer following; the run goes on: {run.url}", file=sys.stderr)
        return 130
    summary = summary_of(client, server, fleet, stamp)
    show_summary(summary, as_json=as_json)
    if ended.state != "SUCCEEDED":
        print(f"hasten: the run ended {ended.state.lower()}: {ended.why or 'see ' + run.url}", file=sys.stderr)
        return 1
    return exit_code(summary)


@app.command(rich_help_panel=PANEL)
def schedule(
    job_file: JobFile,
    cron: Annotated[str, typer.Option(help="Six fields, seconds first: `0 0 2 * * *` is every day at 2:00.")],
    host: Host = "",
    namespace: Namespace = "",
    token_file: TokenFile = None,
    ca_cert: CaCert = None,
    gpus: Gpus = 0,
    gpu_resource: GpuResource = "nvidia.com/gpu",
    gpu_product: GpuProduct = "",
    gpu_image: GpuImage = "",
    account: Account = "",
    retrain: Annotated[
        bool, typer.Option("--retrain", help="Retrain the published model, instead of climbing the ladder anew.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Run a job's ladder, or its retraining, at set times; done again, it replaces the schedule.

    One run at a time; runs that were missed are not made up for. To declare schedules in Git: `hasten reconcile`.

    **Examples**

    `hasten schedule job.yaml --cron "0 0 2 * * *" --host http://localhost:8080`

    `hasten schedule job.yaml --cron "0 0 3 * * 1" --retrain`
    """
    from pipelines.cluster.connection import connect
    from pipelines.cluster.pipeline import LADDER, RETRAIN, gpu_arguments
    from pipelines.cluster.schedules import check_schedule, put_schedule

    job, server = _job(job_file), _server(host, namespace, token_file, ca_cert)
    pipeline = RETRAIN if retrain else LADDER
    cron = check_schedule(job, cron, pipeline)
    gpu = gpu_arguments(gpus, gpu_resource, gpu_product, gpu_image)
    command = (
        f"hasten schedule {shlex.quote(str(job_file))} --cron {shlex.quote(cron)}{' --retrain' if retrain else ''}"
    )
    put, replaced = put_schedule(connect(server), server, job, cron, gpu, command, account, pipeline)
    if as_json:
        print(json.dumps(vars(put) | {"replaced": replaced}))
    else:
        print(f"{put.name}: {put.cron} ({'replaced' if replaced else 'created'}, id {put.id})")


@app.command(rich_help_panel=PANEL)
def schedules(
    host: Host = "",
    namespace: Namespace = "",
    token_file: TokenFile = None,
    ca_cert: CaCert = None,
    as_json: Json = False,
) -> None:
    """List the schedules that hasten made.

    **Example**

    `hasten schedules --host http://localhost:8080`
    """
    from pipelines.cluster.connection import connect
    from pipelines.cluster.schedules import list_schedules

    server = _server(host, namespace, token_file, ca_cert)
    found = list_schedules(connect(server), server)
    if as_json:
        print(json.dumps([vars(each) for each in found]))
        return
    for each in found:
        print(f"{each.name:<30} {each.cron:<20} {'on' if each.enabled else 'off':<4} {each.id}")
    if not found:
        print("no schedules")


@app.command(rich_help_panel=PANEL)
def unschedule(
    name: Annotated[str, typer.Argument(help="The schedule's name: the job's, or `<job>-retrain`.")],
    host: Host = "",
    namespace: Namespace = "",
    token_file: TokenFile = None,
    ca_cert: CaCert = None,
) -> None:
    """Delete a job's schedule; runs that it started go on.

    **Example**

    `hasten unschedule trees --host http://localhost:8080`
    """
    from pipelines.cluster.connection import connect
    from pipelines.cluster.schedules import delete_schedule

    server = _server(host, namespace, token_file, ca_cert)
    count = delete_schedule(connect(server), server, name)
    print(f"{name}: deleted{f' ({count} of that name)' if count > 1 else ''}")


def _job(path: Path) -> "Job":
    from components.core.job_file import read_job

    return read_job(path)


def _server(host: str, namespace: str, token_file: Path | None, ca_cert: Path | None) -> "Server":
    from pipelines.cluster.connection import Server

    return Server.of(host, namespace, token_file, ca_cert)
