"""What a search has found out so far, kept beside its checkpoints: killed, the next try does none of it again."""

from typing import Any

from components.core.training.checkpoints import Checkpoints


class Notes:
    """Numbers and text by section and name, written as a whole after every change.

    Args:
        checkpoints: where; its identity says which search they are of.
    """

    def __init__(self, checkpoints: Checkpoints) -> None:
        self._checkpoints = checkpoints
        self._known: dict[str, dict[str, Any]] = checkpoints.load() or {}

    def section(self, name: str) -> dict[str, Any]:
        """What is noted in a section, by name; a copy."""
        return dict(self._known.get(name, {}))

    def add(self, section: str, found: dict[str, Any]) -> None:
        """Adds entries to a section and writes everything."""
        if not found:
            return
        self._known.setdefault(section, {}).update(found)
        self._checkpoints.save(self._known)

    def clear(self) -> None:
        """Removes them, once the search's result is kept elsewhere."""
        self._checkpoints.clear()
