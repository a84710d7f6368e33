"""The two errors that cross every boundary of hasten."""


class UserError(Exception):
    """The user's input cannot be used; one line: what was given, what is accepted, what to do. Exit code 2."""


class StepError(Exception):
    """A step could not do its work on good input: one line with the reason. Exit code 1."""
