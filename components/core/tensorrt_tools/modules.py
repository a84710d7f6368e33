"""Which Python module drives which TensorRT, and whether it is here."""

import importlib.util

from components.core.contracts.job import Runtime

MODULES = {Runtime.TENSORRT: "tensorrt", Runtime.TENSORRT_RTX: "tensorrt_rtx"}


def missing_module(runtime: Runtime) -> str | None:
    """Why this machine cannot parse or build for a runtime, or None when it can."""
    module = MODULES[runtime]
    if importlib.util.find_spec(module) is not None:
        return None
    where = "the TensorRT image" if runtime is Runtime.TENSORRT else "the extra hasten[tensorrt-rtx]"
    return f"the Python module {module} is not installed here; it is in {where}"
