"""Row 35: DFT."""

import warnings

import numpy as np
import torch
from onnx import helper
from surgery_cases import Case
from surgery_graphs import FLOAT, make_model
from torch import nn


class Spectrum(nn.Module):
    """A feature of sound classifiers."""

    def forward(self, x):
        return torch.view_as_real(torch.fft.rfft(x))


class Mixed(nn.Module):
    """Fourier mixing of tokens, as in FNet: two transforms, the real part."""

    def forward(self, x):
        return torch.fft.fft(torch.fft.fft(x, dim=-1), dim=-2).real


def dynamo(module, x, opset=18):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        program = torch.onnx.export(module.eval(), (x,), dynamo=True, opset_version=opset, verbose=False)
    return program.model_proto


def dft(shape, opset=17, *, axis=None, length=None, **attributes):
    """`axis` is an attribute before opset 20 and an input from then on."""
    constants = {} if length is None else {"length": np.array(length)}
    inputs = ["x", "" if length is None else "length"]
    if axis is not None and opset >= 20:
        constants["axis"], inputs = np.array(axis), [*inputs, "axis"]
    elif axis is not None:
        attributes["axis"] = axis
    while not inputs[-1]:
        inputs.pop()
    node = helper.make_node("DFT", inputs, ["y"], name="dft", **attributes)
    return make_model([node], {"x": (FLOAT, shape)}, {"y": (FLOAT, None)}, constants, opset, 9 if opset > 19 else 8)


CASES = [
    Case("torch.fft.rfft", lambda: dynamo(Spectrum(), torch.rand(2, 3, 50)), before="reject"),
    Case("torch.fft.fft in two axes", lambda: dynamo(Mixed(), torch.rand(2, 9, 16), 20), before="reject"),
    Case("complex, inverse, padded", lambda: dft([2, 20, 3, 2], length=32, inverse=1), before="reject"),
    Case("axis 2 of three, opset 20", lambda: dft([2, 4, 15, 5, 2], 20, axis=2), before="reject"),
    Case("real, one-sided, cut, open batch", lambda: dft(["n", 33, 1], onesided=1, length=24), before="reject"),
]
