"""One parser and one builder of TensorRT, for the processes that engine and diagnosis run it in.

`tensorrt` and `tensorrt_rtx` share this code: both have one Python API and both are strongly typed.
"""

import importlib
import os
import re
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

_PARSING = re.compile(r"(?:Parsing|Static check for parsing) node: (.*)")


class Session:
    """A builder with its logger; networks are made of it, one a parse."""

    def __init__(self, module: str, trace: Path | None = None) -> None:
        """Starts the builder.

        Args:
            module: `tensorrt` or `tensorrt_rtx`.
            trace: file that always holds the name of the node that is being parsed, so that a crash names it.
        """
        self.trt: Any = importlib.import_module(module)
        self.log: list[str] = []
        """Error lines since the last `parse` or `build`."""
        self._logger = _logger(self.trt, self.log, trace)
        self.builder = self.trt.Builder(self._logger)

    def parse(self, model: Path | bytes, path: str | None = None) -> "Parsed":
        """Parses a model.

        Args:
            model: an ONNX file, or a serialized model.
            path: file that a serialized model's external data is relative to.
        """
        self.log.clear()
        network = self.builder.create_network(strongly_typed(self.trt))
        parser = self.trt.OnnxParser(network, self._logger)
        parsed = parser.parse(model, path) if isinstance(model, bytes) else parser.parse_from_file(os.fspath(model))
        return Parsed(bool(parsed), network, parser)

    def build(self, network: Any, config: Any) -> Any:
        """The serialized engine, or None; `log` then says why."""
        self.log.clear()
        return self.builder.build_serialized_network(network, config)


class Parsed:
    """A network with the parser that it belongs to."""

    def __init__(self, ok: bool, network: Any, parser: Any) -> None:
        self.ok, self.network, self._parser = ok, network, parser
        self.errors = [parser.get_error(index) for index in range(parser.num_errors)]


def _logger(trt: Any, log: list[str], trace: Path | None) -> Any:
    descriptor = None if trace is None else os.open(trace, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)

    class Log(trt.ILogger):  # type: ignore[misc, name-defined, unused-ignore]
        def log(self, severity: Any, message: str) -> None:
            if severity in (trt.ILogger.Severity.ERROR, trt.ILogger.Severity.INTERNAL_ERROR):
                log.append(message)
                # Also printed at once, so that a crash leaves its last words.
                print(message, file=sys.stderr, flush=True)
            elif descriptor is not None and (found := _PARSING.match(message)):
                name = found.group(1).encode()
                os.pwrite(descriptor, name, 0)
                os.ftruncate(descriptor, len(name))

    return Log()


def strongly_typed(trt: Any) -> int:
    """The network flag; TensorRT 11 has nothing else, and may drop the flag."""
    flag = getattr(trt.NetworkDefinitionCreationFlag, "STRONGLY_TYPED", None)
    return 0 if flag is None else 1 << int(flag)


def failed_layer(network: Any, log: Sequence[str]) -> tuple[str, str, str]:
    """What a build stopped at: the kind of the layer that the log names, its ONNX node, and the words that do.

    The kind and the node are empty where no layer is named.
    """
    layers = [network.get_layer(index) for index in range(network.num_layers)]
    for words in log:
        named = [layer for layer in layers if layer.name and layer.name in words]
        if named:
            layer = max(named, key=lambda layer: len(layer.name))
            return layer.type.name, onnx_node(layer), words
    return "", "", log[0] if log else ""


def onnx_node(layer: Any) -> str:
    """The ONNX node that a layer was made of; its own name where the parser left no note."""
    noted = re.findall(r"\[ONNX Layer: ([^\]]+)\]", getattr(layer, "metadata", "") or "")
    return str(noted[-1] if noted else layer.name).removeprefix("node_of_")


def open_inputs(network: Any) -> dict[str, tuple[int, ...]]:
    """Inputs with open dimensions (-1) and their shapes."""
    inputs = [network.get_input(index) for index in range(network.num_inputs)]
    return {tensor.name: tuple(tensor.shape) for tensor in inputs if -1 in tuple(tensor.shape)}


def add_profile(
    builder: Any, config: Any, network: Any, shapes: Mapping[str, Sequence[int]], values: bool = False
) -> None:
    """Fixes open inputs to `shapes`.

    Args:
        builder: of the session.
        config: to add the profile to.
        network: parsed.
        shapes: one for each of `open_inputs`.
        values: whether inputs that are read as shapes are said to be 1 or 2: enough to see whether a network builds,
            and nothing that an engine may be shipped with.
    """
    profile = builder.create_optimization_profile()
    for name, shape in shapes.items():
        profile.set_shape(name, tuple(shape), tuple(shape), tuple(shape))
    needed = bool(shapes)
    for index in range(network.num_inputs if values else 0):
        tensor = network.get_input(index)
        if tensor.is_shape_tensor:
            count = max(1, (shapes.get(tensor.name) or tuple(tensor.shape) or (1,))[0])
            profile.set_shape_input(tensor.name, [1] * count, [1] * count, [2] * count)
            needed = True
    if needed:
        config.add_optimization_profile(profile)
