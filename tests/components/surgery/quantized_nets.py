"""A small residual network as ONNX Runtime's quantizers write it, and what layers TensorRT-RTX builds for it."""

import re
import tempfile
from pathlib import Path

import numpy as np
import onnx
import torch
from onnxruntime.quantization import CalibrationDataReader, quantize_dynamic, quantize_static
from surgery_graphs import export
from torch import nn
from torch.nn import functional

SHAPE = (1, 3, 16, 16)


class Residual(nn.Module):
    """Convolutions with ReLU and ReLU6, a residual sum, SiLU, a linear layer and a softmax."""

    def __init__(self, width=8):
        super().__init__()
        self.stem = nn.Conv2d(3, width, 3, padding=1)
        self.body = nn.Conv2d(width, width, 3, padding=1)
        self.side = nn.Conv2d(width, width, 1)
        self.pool = nn.MaxPool2d(2)
        self.head = nn.Linear(width, 5)

    def forward(self, x):
        x = self.pool(torch.relu(self.stem(x)))
        x = torch.relu(x + self.side(functional.relu6(self.body(x))))
        x = functional.silu(x)
        return torch.softmax(self.head(x.mean((2, 3))), -1)


class _Images(CalibrationDataReader):
    def __init__(self):
        self._left = iter(range(4))

    def get_next(self):
        seed = next(self._left, None)
        return None if seed is None else images(np.random.default_rng(seed))


def images(rng):
    """Inputs as they were calibrated."""
    return {"x": rng.random(SHAPE).astype(np.float32)}


def floats():
    """The network before quantization."""
    torch.manual_seed(0)
    return export(Residual(), torch.rand(*SHAPE), input_names=["x"], output_names=["y"])


def static(**options):
    """Quantized by ``quantize_static``."""
    return _quantized(lambda given, made: quantize_static(given, made, _Images(), **options))


def dynamic(**options):
    """Quantized by ``quantize_dynamic``."""
    return _quantized(lambda given, made: quantize_dynamic(given, made, **options))


def _quantized(quantize):
    with tempfile.TemporaryDirectory() as folder:
        given, made = Path(folder) / "floats.onnx", Path(folder) / "quantized.onnx"
        onnx.save(floats(), given)
        quantize(given, made)
        return onnx.load(made)


def engine_layers(model):
    """(kind, name, types of the inputs, types of the outputs) of each layer of the engine, from the builder's log."""
    import tensorrt_rtx as trt

    words = []

    class Log(trt.ILogger):
        def log(self, severity, message):
            words.append(message)

    log = Log()
    builder = trt.Builder(log)
    network = builder.create_network(1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
    assert trt.OnnxParser(network, log).parse(model.SerializeToString()), words[-1]
    config = builder.create_builder_config()
    config.profiling_verbosity = trt.ProfilingVerbosity.DETAILED
    assert builder.build_serialized_network(network, config) is not None, words[-1]
    (listed,) = [message for message in words if message.startswith("Layers:")]
    layers = []
    for line in listed.splitlines():
        found = re.match(r"Name: (.*?), LayerType: (.*?), Inputs: (.*?)(?:, Constants: .*?)?, Outputs: (.*)", line)
        if found:
            layers.append((found[2], found[1], *(re.findall(r"Datatype: (\w+)", found[at]) for at in (3, 4))))
    return layers
