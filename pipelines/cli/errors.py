"""Every way a command can end, as an exit code and at most a few clear lines on stderr."""

import os
import sys
import tempfile
import traceback
from pathlib import Path
from typing import Any

EXIT_INTERNAL, EXIT_BAD_INPUT, EXIT_SIGNAL = 1, 2, 128


def run(app: Any) -> int:
    """Runs the command line; returns the exit code.

    A mistake of the user's is one line a problem and 2; a step that could not do its work is one line and 1; anything
    else is one line that names the file with the traceback, and 1. ``HASTEN_DEBUG=1`` lets tracebacks through.
    """
    try:
        code = app(standalone_mode=False)
    except KeyboardInterrupt:
        return _say("stopped", EXIT_SIGNAL + 2)
    except BrokenPipeError:  # the reader of our output, `head` for instance, has enough
        sys.stdout = open(os.devnull, "w")  # noqa: PTH123, SIM115 (else Python complains once more at exit)
        return EXIT_INTERNAL
    except Exception as error:
        if os.environ.get("HASTEN_DEBUG"):
            raise
        return _explain(error)
    return code if isinstance(code, int) else 0


def _explain(error: Exception) -> int:
    from components.core.errors import StepError, UserError
    from components.core.stepping import is_disk_full, one_line

    if isinstance(error, UserError):
        return _say(str(error), EXIT_BAD_INPUT)
    if isinstance(error, StepError) or is_disk_full(error):
        return _say(one_line(error), EXIT_INTERNAL)
    if hasattr(error, "format_message") and hasattr(error, "exit_code"):  # of the command-line parser
        if not error.format_message():  # no command at all: the help page was shown
            return EXIT_BAD_INPUT
        context = getattr(error, "ctx", None)
        hint = f" (see {context.command_path} --help)" if context else ""
        return _say(f"{' '.join(error.format_message().split())}{hint}", EXIT_BAD_INPUT)
    where = _keep_traceback()
    return _say(f"internal error: {one_line(error)}{where}", EXIT_INTERNAL)


def _keep_traceback() -> str:
    try:
        descriptor, name = tempfile.mkstemp(prefix="hasten-error-", suffix=".log")
        with os.fdopen(descriptor, "w") as stream:
            traceback.print_exc(file=stream)
    except OSError:
        return "; HASTEN_DEBUG=1 shows the traceback"
    return f" (traceback: {Path(name)})"


def _say(text: str, code: int) -> int:
    for line in text.splitlines() or [""]:
        print(f"hasten: {line}", file=sys.stderr)
    return code
