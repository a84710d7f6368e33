"""KFP's local cache, with one name a component instead of one a task.

KFP puts a task's component name into its key, and names the second `export` of a pipeline `comp-export-2`. So the
export that `compress` asks for in the second rung would never meet the one that the first rung made. Source, image and
arguments are in the key anyway; without the counter, the same work is the same key wherever it stands.
"""

import re
from typing import Any

from kfp.local import cache

from components.core.stepping import announce

_COUNTER = re.compile(r"(-\d+)+$")


class StepCache(cache.LocalCache):  # type: ignore[misc]
    """Also tells the live view about every step that it saves."""

    def compute_key(self, component_name: str, *args: Any, **kwargs: Any) -> str:
        """The key of a task."""
        name = _COUNTER.sub("", component_name)
        key: str = super().compute_key(name, *args, **kwargs)
        self._asked = (key, name.removeprefix("comp-"))
        return key

    def get(self, key: str) -> dict[str, Any] | None:
        """The outputs kept under a key, or None."""
        outputs: dict[str, Any] | None = super().get(key)
        asked_key, name = getattr(self, "_asked", ("", ""))
        if outputs is not None and asked_key == key:
            announce("cached", step=name)
        return outputs


def install() -> None:
    """Makes kfp.local use it; call before `kfp.local.init`."""
    cache.LocalCache = StepCache
    cache.reset_local_cache_singleton()
