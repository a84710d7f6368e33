"""Row 46: LSTM with projection, in the forms that it is found in."""

import warnings

import numpy as np
import torch
from surgery_cases import Case
from surgery_graphs import export
from torch import nn

STEPS, FEATURES, HIDDEN, PROJECTED = 6, 5, 8, 3


class Projected(nn.Module):
    """torch's own, exported with its cell in a scripted loop."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.lstm = nn.LSTM(FEATURES, HIDDEN, proj_size=PROJECTED)

    def forward(self, x):
        lstm = self.lstm
        weights = lstm.weight_ih_l0, lstm.weight_hh_l0, lstm.bias_ih_l0 + lstm.bias_hh_l0, lstm.weight_hr_l0
        return _projected(x, *weights)


@torch.jit.script
def _projected(x, w_ih, w_hh, bias, w_hr):
    h = torch.zeros([x.size(1), w_hr.size(0)], dtype=x.dtype)
    c = torch.zeros([x.size(1), w_hr.size(1)], dtype=x.dtype)
    seen = []
    for step in range(x.size(0)):
        gates = torch.matmul(x[step], w_ih.t()) + torch.matmul(h, w_hh.t()) + bias
        i, f, g, o = torch.chunk(gates, 4, 1)
        c = f.sigmoid() * c + i.sigmoid() * g.tanh()
        h = torch.matmul(o.sigmoid() * c.tanh(), w_hr.t())
        seen.append(h)
    return torch.stack(seen)


def scripted(*, length_open=False):
    axes = {"x": {0: "steps"}} if length_open else None
    return export(Projected(), torch.rand(STEPS, 2, FEATURES), input_names=["x"], output_names=["y"], dynamic_axes=axes)


def dynamo():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        program = torch.onnx.export(
            Projected().lstm.eval(), (torch.rand(STEPS, 2, FEATURES),), dynamo=True, opset_version=18, verbose=False
        )
    return program.model_proto


def torchs_answer(feed):
    """What torch's LSTM itself computes."""
    with torch.no_grad():
        return {"y": Projected().lstm(torch.from_numpy(feed["x"]))[0].numpy()}


def feeds(rng, steps=STEPS):
    return {"x": rng.standard_normal((steps, 2, FEATURES)).astype(np.float32)}


CASES = [
    Case("scripted cell", scripted, before="reject", feeds=feeds, reference=torchs_answer, by=34),
    Case(
        "scripted cell, open length",
        lambda: scripted(length_open=True),
        before="reject",
        feeds=lambda rng: feeds(rng, int(rng.integers(1, 20))),
        reference=torchs_answer,
        by=34,
    ),
    Case("cut by the dynamo exporter", dynamo, before="reject", after="diagnosis"),
]
