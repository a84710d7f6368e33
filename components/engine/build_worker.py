"""Parses an ONNX file and builds one engine, in a process of its own: native code that crashes takes only it along.

``python -m components.engine.build_worker REQUEST.json ANSWER.json``; see `components.engine.build` for both.
`tensorrt` and `tensorrt_rtx` share this code: TensorRT 11 and TensorRT-RTX have one Python API, both strongly typed.
"""

import importlib
import json
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

_WEIGHTED = ("CONVOLUTION", "DECONVOLUTION", "MATRIX_MULTIPLY")


def main(request_path: Path, answer_path: Path) -> None:
    """Does what the request asks and writes the answer: a card, or the reason why there is none."""
    request = json.loads(request_path.read_text())
    answer_path.write_text(json.dumps(build(**request)))


def build(
    module: str, onnx: str, engine: str, compute_capabilities: list[str], timing_cache: str | None
) -> dict[str, Any]:
    """Returns ``{"card": ...}`` or ``{"errors": [{"node", "operator", "words"}]}``; writes the engine file."""
    trt: Any = importlib.import_module(module)
    logger = trt.Logger(trt.Logger.ERROR)
    builder = trt.Builder(logger)
    network = builder.create_network(1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
    parser = trt.OnnxParser(network, logger)
    if not parser.parse_from_file(onnx):
        return {"errors": [_parser_error(parser.get_error(index)) for index in range(parser.num_errors)]}
    config = builder.create_builder_config()
    targets = _target(trt, config, compute_capabilities)
    cache = _timing_cache(config, timing_cache)
    _pin_dynamic_inputs(builder, config, network)
    started = time.monotonic()
    plan = builder.build_serialized_network(network, config)
    seconds = time.monotonic() - started
    if plan is None:
        return {"errors": [{"node": "", "operator": "", "words": "the builder found no implementation; see its log"}]}
    with Path(engine).open("wb") as stream:
        stream.write(plan)
    if cache is not None and timing_cache is not None:
        with Path(timing_cache).open("wb") as stream:
            stream.write(memoryview(cache.serialize()))
    layers = [network.get_layer(index) for index in range(network.num_layers)]
    card = {
        "module": module,
        "version": trt.__version__,
        "compute_capabilities": targets,
        "inputs": [_tensor(network.get_input(index)) for index in range(network.num_inputs)],
        "outputs": [_tensor(network.get_output(index)) for index in range(network.num_outputs)],
        "layers": dict(Counter(layer.type.name for layer in layers).most_common()),
        "weighted_layers": _precisions(trt, layers),
        "plugins": sum(layer.type.name.startswith("PLUGIN") for layer in layers),
        "timing_cache": timing_cache is not None and cache is not None,
        "build_seconds": round(seconds, 2),
        "size_bytes": Path(engine).stat().st_size,
    }
    return {"card": card}


def _parser_error(error: Any) -> dict[str, str]:
    return {"node": error.node_name() or str(error.node()), "operator": error.node_operator(), "words": error.desc()}


def _target(trt: Any, config: Any, compute_capabilities: list[str]) -> list[str] | str:
    """Names the GPUs to build for, where the builder lets one choose."""
    if not compute_capabilities or not hasattr(config, "set_compute_capability"):
        return "the builder's own choice"
    config.num_compute_capabilities = len(compute_capabilities)
    for index, capability in enumerate(compute_capabilities):
        value = getattr(trt.ComputeCapability, "SM" + capability.replace(".", ""), None)
        if value is None:
            known = ", ".join(name for name in dir(trt.ComputeCapability) if name.startswith("SM"))
            raise SystemExit(f"compute capability {capability} is unknown to {trt.__name__}; it builds for {known}")
        config.set_compute_capability(value, index)
    return compute_capabilities


def _timing_cache(config: Any, path: str | None) -> Any:
    """The builder's measurements of earlier builds; None where the builder keeps none."""
    if path is None or not hasattr(config, "create_timing_cache"):
        return None
    stored = Path(path).read_bytes() if Path(path).exists() else b""
    cache = config.create_timing_cache(stored) or config.create_timing_cache(b"")
    if cache is None or not config.set_timing_cache(cache, ignore_mismatch=False):
        return None
    return cache


def _pin_dynamic_inputs(builder: Any, config: Any, network: Any) -> None:
    """One optimization profile with 1 for every dimension that is left open."""
    profile = builder.create_optimization_profile()
    dynamic = False
    for index in range(network.num_inputs):
        tensor = network.get_input(index)
        if -1 in tuple(tensor.shape):
            shape = tuple(1 if side == -1 else side for side in tensor.shape)
            profile.set_shape(tensor.name, shape, shape, shape)
            dynamic = True
    if dynamic:
        config.add_optimization_profile(profile)


def _tensor(tensor: Any) -> dict[str, Any]:
    return {"name": tensor.name, "shape": list(tensor.shape), "type": tensor.dtype.name}


def _precisions(trt: Any, layers: list[Any]) -> dict[str, int]:
    """Weighted layers by the type they are fed with: INT8 behind a DequantizeLinear, else their tensor's own type."""
    producers = {layer.get_output(index).name: layer for layer in layers for index in range(layer.num_outputs)}
    counts: Counter[str] = Counter()
    for layer in layers:
        if layer.type.name in _WEIGHTED and _has_weights(layer, producers):
            source = producers.get(layer.get_input(0).name)
            quantized = source is not None and source.type == trt.LayerType.DEQUANTIZE
            counts["INT8" if quantized else layer.get_input(0).dtype.name] += 1
    return dict(counts)


def _has_weights(layer: Any, producers: dict[str, Any]) -> bool:
    if layer.num_inputs < 2:
        return True
    source = producers.get(layer.get_input(1).name)
    while source is not None and source.type.name in ("DEQUANTIZE", "QUANTIZE", "SHUFFLE", "CAST"):
        source = producers.get(source.get_input(0).name)
    return source is not None and source.type.name == "CONSTANT"


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
