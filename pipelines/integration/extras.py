"""Packages that an integration needs and a plain installation does not have."""

import importlib.util

from components.core.errors import UserError


def need(module: str, extra: str) -> None:
    """Refuses to go on without a package.

    Raises:
        UserError: with what installs it.
    """
    if importlib.util.find_spec(module) is None:
        raise UserError(f"the Python package {module} is not installed; it comes with: pip install 'hasten[{extra}]'")
