"""Triton's own schema of a config.pbtxt, from NVIDIA's package tritonclient."""

import importlib.util
from functools import cache
from typing import Any

from google.protobuf import text_format


def parse_config(text: str) -> Any:
    """The configuration as Triton reads it; a field or a value that Triton does not know fails."""
    return text_format.Parse(text, schema().ModelConfig())


@cache
def schema() -> Any:
    """``model_config_pb2``, loaded by itself: its package wants gRPC, which a file needs not."""
    package = importlib.util.find_spec("tritonclient")
    assert package is not None, "the package tritonclient (extra dev) is not installed"
    assert package.submodule_search_locations
    path = f"{package.submodule_search_locations[0]}/grpc/model_config_pb2.py"
    spec = importlib.util.spec_from_file_location("triton_model_config_pb2", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
