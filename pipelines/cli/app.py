"""The command-line application that the command modules add themselves to."""

from typing import Annotated

import typer

app = typer.Typer(
    name="hasten",
    help="Makes a trained model fast enough to ship: quantizes, converts and measures it, cheapest technique first.",
    epilog=(
        "Start with: `hasten doctor`, then `hasten run pipelines/examples/trees.yaml`.\n\n"
        "Exit codes: 0 goal met (or done), 3 goal not met, 2 bad input, 1 internal error."
    ),
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _print_version(wanted: bool) -> None:
    if wanted:
        from importlib.metadata import version

        typer.echo(f"hasten {version('hasten')}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    del version
