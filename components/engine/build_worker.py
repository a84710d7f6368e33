"""Parses an ONNX file and builds one engine, in a process of its own: native code that crashes takes only it along.

``python -m components.engine.build_worker REQUEST.json ANSWER.json``; `components.engine.build` writes the one and
reads the other.
"""

import json
import os
import sys
import time
import warnings
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from components.core.tensorrt_tools.session import Session, add_profile, failed_layer, open_inputs

_WEIGHTED = ("CONVOLUTION", "DECONVOLUTION", "MATRIX_MULTIPLY")
_TRANSPARENT = ("QUANTIZE", "DEQUANTIZE", "SHUFFLE", "CAST", "IDENTITY")


def main(request_path: Path, answer_path: Path) -> None:
    """Does what the request asks and writes the answer: a card, or why there is none."""
    warnings.simplefilter("ignore", DeprecationWarning)
    answer = build(**json.loads(request_path.read_text()))
    answer_path.write_text(json.dumps(answer))


def build(
    module: str,
    onnx: str,
    engine: str,
    compute_capabilities: Sequence[str],
    input_shape: Sequence[int],
    timing_cache: str,
) -> dict[str, Any]:
    """Writes the engine file.

    Returns:
        ``{"card": ...}``, ``{"failures": [[operator, node, words]], "log": [...]}``, or ``{"unknown_capability",
        "known", "version"}``.
    """
    session = Session(module)
    trt, builder = session.trt, session.builder
    parsed = session.parse(Path(onnx))
    network = parsed.network
    if not parsed.ok:
        return {"failures": [_parser_failure(error) for error in parsed.errors], "log": session.log}
    config = builder.create_builder_config()
    unknown = _choose_gpus(trt, config, compute_capabilities)
    if unknown:
        return unknown | {"version": trt.__version__}
    shapes, problem = _fixed(open_inputs(network), input_shape)
    if problem:
        return {"failures": [problem], "log": session.log}
    add_profile(builder, config, network, shapes)
    cache, cache_words = _load_timing_cache(trt, config, Path(timing_cache))
    started = time.monotonic()
    plan = session.build(network, config)
    seconds = time.monotonic() - started
    if plan is None:
        failures = [list(failed_layer(network, session.log))] if session.log else []
        return {"failures": failures, "log": session.log}
    _write(Path(engine), memoryview(plan))
    if cache is not None:
        _write(Path(timing_cache), memoryview(cache.serialize()))
    card = _card(trt, network, config, seconds, Path(engine))
    for tensor in card["inputs"]:
        tensor["shape"] = list(shapes.get(tensor["name"], tensor["shape"]))
    return {"card": card | {"timing_cache": cache_words}}


def _parser_failure(error: Any) -> list[str]:
    return [error.node_operator(), error.node_name() or f"number {error.node()}", error.desc()]


def _choose_gpus(trt: Any, config: Any, compute_capabilities: Sequence[str]) -> dict[str, Any] | None:
    """Names the GPUs to build for, where the builder lets one choose; what it does not know, if anything."""
    if not compute_capabilities or not hasattr(config, "set_compute_capability"):
        return None
    config.num_compute_capabilities = len(compute_capabilities)
    for index, capability in enumerate(compute_capabilities):
        value = getattr(trt.ComputeCapability, "SM" + capability.replace(".", ""), None)
        if value is None:
            names = (name[2:] for name in dir(trt.ComputeCapability) if name.startswith("SM"))
            return {"unknown_capability": capability, "known": [f"{name[:-1]}.{name[-1]}" for name in names]}
        config.set_compute_capability(value, index)
    return None


def _fixed(
    given: dict[str, tuple[int, ...]], input_shape: Sequence[int]
) -> tuple[dict[str, tuple[int, ...]], list[str] | None]:
    """Open inputs at the job's input shape, and what stops it, if anything."""
    shapes = {}
    for name, shape in given.items():
        if len(shape) != len(input_shape):
            words = f"the input has open dimensions {list(shape)}; fix them when exporting"
            return {}, ["", name, words]
        shapes[name] = tuple(side if side != -1 else new for side, new in zip(shape, input_shape, strict=True))
    return shapes, None


def _load_timing_cache(trt: Any, config: Any, path: Path) -> tuple[Any, str]:
    """The builder's measurements of earlier builds, to go on with, and what the card says of them."""
    if trt.__name__ == "tensorrt_rtx":
        return None, "none: TensorRT-RTX tunes its kernels on the GPU that runs the engine"
    stored = path.read_bytes() if path.exists() else b""
    for content, words in ((stored, "reused"), (b"", "new")):
        cache = config.create_timing_cache(content) if content or words == "new" else None
        if cache is not None and config.set_timing_cache(cache, False):
            return cache, words
    return None, "none: the builder refused it"


def _write(path: Path, content: memoryview) -> None:
    partial = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with partial.open("wb") as stream:
            stream.write(content)
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


def _card(trt: Any, network: Any, config: Any, seconds: float, engine: Path) -> dict[str, Any]:
    layers = [network.get_layer(index) for index in range(network.num_layers)]
    kinds = Counter(layer.type.name for layer in layers)
    return {
        "module": trt.__name__,
        "version": trt.__version__,
        "compute_capabilities": _gpus(config),
        "inputs": [_tensor(network.get_input(index)) for index in range(network.num_inputs)],
        "outputs": [_tensor(network.get_output(index)) for index in range(network.num_outputs)],
        "layers": dict(kinds.most_common()),
        "precisions": _precisions(layers),
        "quantize_layers": kinds["QUANTIZE"],
        "dequantize_layers": kinds["DEQUANTIZE"],
        "plugins": sum(count for kind, count in kinds.items() if kind.startswith("PLUGIN")),
        "build_seconds": round(seconds, 2),
        "size_bytes": engine.stat().st_size,
    }


def _gpus(config: Any) -> list[str]:
    count = getattr(config, "num_compute_capabilities", 0)
    names = [config.get_compute_capability(index).name.removeprefix("SM") for index in range(count)]
    return [f"{name[:-1]}.{name[-1]}" if name.isdigit() else name.lower() for name in names] or ["default"]


def _tensor(tensor: Any) -> dict[str, Any]:
    return {"name": tensor.name, "shape": list(tensor.shape), "type": tensor.dtype.name}


def _precisions(layers: list[Any]) -> dict[str, int]:
    """Layers with weights by the type they are fed with: INT8 behind a DequantizeLinear, else their tensor's own."""
    producers = {layer.get_output(index).name: layer for layer in layers for index in range(layer.num_outputs)}
    counts: Counter[str] = Counter()
    for layer in layers:
        if layer.type.name in _WEIGHTED and _has_weights(layer, producers):
            source = producers.get(layer.get_input(0).name)
            quantized = source is not None and source.type.name == "DEQUANTIZE"
            counts["INT8" if quantized else layer.get_input(0).dtype.name] += 1
    return dict(counts)


def _has_weights(layer: Any, producers: dict[str, Any]) -> bool:
    """Whether the second operand is constant; a convolution whose weights are no operand at all has them inside."""
    if layer.num_inputs < 2:
        return True
    source = producers.get(layer.get_input(1).name)
    while source is not None and source.type.name in _TRANSPARENT:
        source = producers.get(source.get_input(0).name)
    return source is not None and source.type.name == "CONSTANT"


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
