"""The steps by their names: the same components that KFP runs."""

import importlib
from typing import Any

from components.core.errors import UserError
from pipelines.compiling import STEPS

PIPELINE_STEPS = {
    "pipelines.ladder.prepare": ("prepare", "destination", "keep", "pass_on"),
    "pipelines.ladder.training": ("note",),
    "pipelines.retrain.prepare": ("prepare_retraining", "conclude"),
}
"""Modules of the pipelines that have small steps of their own."""


def find_step(name: str) -> Any:
    """The KFP component of that name; its ``python_func`` is what runs.

    Raises:
        UserError: there is none.
    """
    known = {step: f"components.{folder}.component" for folder, names in STEPS.items() for step in names}
    known |= {step: module for module, names in PIPELINE_STEPS.items() for step in names}
    if name not in known:
        raise UserError(f"step {name!r}: there is none; there are: {', '.join(sorted(known))}")
    return getattr(importlib.import_module(known[name]), name)
