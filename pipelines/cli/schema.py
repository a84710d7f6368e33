"""`hasten schema`: the contracts as JSON schemas."""

from pathlib import Path
from typing import Annotated

import typer

from pipelines.cli.app import app


@app.command()
def schema(
    contract: Annotated[
        str, typer.Argument(help="`job`, `leaderboard`, `manifest` or `run-plan`; without it, all of them with --out.")
    ] = "job",
    out: Annotated[Path | None, typer.Option("--out", "-o", help="Folder for one file a contract.")] = None,
) -> None:
    """Print the JSON schema of a contract: every field with its unit, default and meaning.

    **Examples**

    `hasten schema job` shows what a job file takes.

    `hasten schema --out schemas` writes `job.json`, `leaderboard.json`, `manifest.json` and `run-plan.json`; an editor
    with YAML support checks job files with the first one.
    """
    import json

    from pydantic import BaseModel

    from components.core.contracts.job import Job
    from components.core.contracts.leaderboard import Leaderboard
    from components.core.contracts.run_plan import RunPlan
    from components.core.contracts.variant import Manifest
    from components.core.errors import UserError

    contracts: dict[str, type[BaseModel]] = {
        "job": Job,
        "leaderboard": Leaderboard,
        "manifest": Manifest,
        "run-plan": RunPlan,
    }
    texts = {name: json.dumps(model.model_json_schema(), indent=2) for name, model in contracts.items()}
    if out is not None:
        out.mkdir(parents=True, exist_ok=True)
        for name, text in texts.items():
            (out / f"{name}.json").write_text(text + "\n")
            typer.echo(str(out / f"{name}.json"))
    elif contract in texts:
        typer.echo(texts[contract])
    else:
        raise UserError(f"schema: given {contract!r}, accepted: {', '.join(texts)}")
