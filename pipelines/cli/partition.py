"""`hasten partition`: engine parts and a remainder for ONNX Runtime, for what no surgery can fix."""

from pathlib import Path
from typing import Annotated

import typer

from pipelines.cli.app import app
from pipelines.cli.steps import Json, Onnx, Out, _progress

_STEPS = "Steps of the ladder, alone"


@app.command(rich_help_panel=_STEPS)
def partition(
    model: Onnx,
    out: Out,
    runtime: Annotated[str, typer.Option("--runtime", "-r", help="`tensorrt-rtx` or `tensorrt`.")] = "tensorrt-rtx",
    inputs: Annotated[
        list[Path] | None,
        typer.Option(
            "--input", help="`.npz` file with one array for each input, to prove the plan on. May be repeated."
        ),
    ] = None,
    engines: Annotated[bool, typer.Option(help="Keep the engines that are built to see what builds.")] = True,
    as_json: Json = False,
) -> None:
    """Cut a model into TensorRT engines and a remainder for ONNX Runtime, and write the plan to run them.

    For a model that TensorRT does not take even after `hasten surgery`. NVIDIA's own parser and builder decide what an
    engine takes; there are as few engines as possible. Run part by part in ONNX Runtime, the plan makes what the whole
    model makes: this is checked on random inputs and on yours.

    **Example**

    `hasten partition detector.onnx --runtime tensorrt-rtx --out work/plan`, then `hasten benchmark detector.onnx
    work/plan/run_plan.json --annotations test.json --images test --out work/measured`
    """
    from components.core.contracts.job import Runtime
    from components.surgery.partition.run import partition as cut
    from pipelines.single_step import output_folder, parse_runtimes

    targets = parse_runtimes(runtime, [Runtime.TENSORRT, Runtime.TENSORRT_RTX])
    with _progress("partition"), output_folder(out) as folder:
        plan = cut(model, targets[0], folder, inputs or [], keep_engines=engines)
    if as_json:
        typer.echo(plan.model_dump_json(indent=2))
        return
    for part in plan.parts:
        typer.echo(f"{part.id}  {part.runtime:<13} {part.nodes:>5} nodes  {out / part.file}")
    typer.echo(f"{out / 'run_plan.json'}: {plan.summary()}")
