"""Fixtures that several folders share; each lives in a file of its own below `fixtures/`."""

import signal

import hypothesis
import pytest

# A shell starts what runs in its background with SIGINT ignored, and children would inherit it; tests press Ctrl-C.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

# The same examples each time, so that only what changed can fail; `--hypothesis-profile explore` looks for others.
hypothesis.settings.register_profile("repeatable", derandomize=True, deadline=None)
hypothesis.settings.register_profile("explore", deadline=None)
hypothesis.settings.load_profile("repeatable")

pytest_plugins = ["fixtures.kfp_server", "fixtures.model_registry_server", "fixtures.seaweedfs"]


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leaves `nightly` tests out unless ``-m`` names them; in `addopts`, another ``-m`` would bring them in."""
    if "nightly" in config.getoption("-m", default=""):
        return
    nightly = [item for item in items if item.get_closest_marker("nightly")]
    config.hook.pytest_deselected(items=nightly)
    items[:] = [item for item in items if item not in nightly]
