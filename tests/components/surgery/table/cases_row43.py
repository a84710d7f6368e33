"""Row 43: ``x[mask] = value``, exported by torch's dynamo exporter."""

import warnings

import numpy as np
import torch
from surgery_cases import Case
from torch import nn


class Filled(nn.Module):
    def forward(self, x, mask):
        y = x.clone()
        y[mask] = 0.5
        return y


class Assigned(nn.Module):
    """The value is an input: a number, or a row."""

    def forward(self, x, mask, value):
        y = x.clone()
        y[mask] = value
        return y


class Clipped(nn.Module):
    def forward(self, x):
        y = x.clone()
        y[x < 0] = 0.0
        return y * 2


def exported(module, *arguments, rows_open=False):
    rows = torch.export.Dim("rows", min=2, max=64)
    names = list(module.forward.__code__.co_varnames[1 : 1 + len(arguments)])
    shapes = {name: {0: rows} if name in ("x", "mask") else None for name in names} if rows_open else None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        program = torch.onnx.export(
            module.eval(), arguments, dynamo=True, opset_version=18, dynamic_shapes=shapes, verbose=False
        )
    return program.model_proto


X, MASK = torch.rand(6, 5), torch.rand(6, 5) > 0.5


def feeds(rng, rows=6, mask=(5,), **more):
    x = rng.standard_normal((rows, 5)).astype(np.float32)
    return {"x": x, "mask": rng.random((rows, *mask)) < 0.5} | more


CASES = [
    Case("a number", lambda: exported(Filled(), X, MASK), before="reject"),
    Case(
        "open rows",
        lambda: exported(Filled(), X, MASK, rows_open=True),
        before="reject",
        feeds=lambda rng: feeds(rng, int(rng.integers(2, 20))),
    ),
    Case("mask made of the data, open rows", lambda: exported(Clipped(), X, rows_open=True), before="reject"),
    Case("a number from outside", lambda: exported(Assigned(), X, MASK, torch.rand(())), before="reject"),
    Case("a row for each selected row", lambda: exported(Assigned(), X, MASK[:, 0], torch.rand(5)), before="reject"),
]
