"""Where the `hasten` command starts: as light as can be, so that Ctrl-C is taken well from the first moment."""

import sys


def main() -> None:
    """Entry point of the `hasten` command."""
    from pipelines.cli import interrupts

    interrupts.listen()
    try:
        from pipelines.cli import main as commands

        commands.main()
    except KeyboardInterrupt:
        print("hasten: stopped", file=sys.stderr)
        sys.exit(130)


if __name__ == "__main__":
    main()
