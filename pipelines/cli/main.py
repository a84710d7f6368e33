"""The `hasten` command. Command modules import nothing heavy before their command runs, so that `--help` is quick."""

import sys

from pipelines.cli import (
    argo,
    cluster,
    compiling,
    doctor,
    errors,
    fleet,
    integration,
    interrupts,
    partition,
    reconcile,
    retrain,
    rollback,
    run,
    sample,
    schema,
    simulate,
    steps,
    surgery,
    training,
)
from pipelines.cli.app import app

COMMANDS = (
    run,
    retrain,
    rollback,
    fleet,
    steps,
    surgery,
    partition,
    training,
    cluster,
    reconcile,
    simulate,
    argo,
    integration,
    doctor,
    compiling,
    sample,
    schema,
)
"""Modules whose import adds their commands to the application, in the order of the help page."""


def main() -> None:
    """Runs the command that the arguments name, and ends the process with its exit code."""
    interrupts.listen()
    sys.exit(errors.run(app))


if __name__ == "__main__":
    main()
