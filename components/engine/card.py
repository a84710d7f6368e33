"""What is known of an engine; `engine_card.json`, and `details["engine"]` of the variant."""

from pydantic import Field

from components.core.contracts.base import Contract


class TensorCard(Contract):
    """An input or output; for an input the shape is the whole optimization profile."""

    name: str
    shape: list[int]
    type: str = Field(description="TensorRT's name of the data type, e.g. FLOAT, HALF, INT64")


class EngineCard(Contract):
    """How an engine was built and what is in it."""

    module: str = Field(description="Python module that built it: tensorrt or tensorrt_rtx")
    version: str
    compute_capabilities: list[str] = Field(description="GPUs it runs on, e.g. 8.6; `default`: the builder's choice")
    inputs: list[TensorCard]
    outputs: list[TensorCard]
    layers: dict[str, int] = Field(description="layers of the parsed network by kind, before the builder fuses them")
    precisions: dict[str, int] = Field(
        description="layers with weights by the type that they compute in; INT8 is one between DequantizeLinear nodes"
    )
    quantize_layers: int
    dequantize_layers: int
    plugins: int = Field(description="always 0: an engine with a plugin is refused")
    timing_cache: str = Field(description="`new`, `reused`, or why there is none")
    build_seconds: float
    size_bytes: int
    onnx_sha256: str
