"""Row 46: the way out that the diagnosis names is the same function, and plain LSTMs stay."""

import sys
from pathlib import Path

import numpy as np
import torch
from surgery_graphs import RTX, assert_untouched, export, needs_rtx, rtx
from torch import nn

from components.surgery.evaluate import Model
from components.surgery.operate import operate
from components.surgery.surgery import Outcome

sys.path.insert(0, str(Path(__file__).with_name("table")))
from cases_row46 import FEATURES, HIDDEN, STEPS, Projected, dynamo, feeds, torchs_answer


class WayOut(nn.Module):
    """An LSTM without projection and a Linear behind it."""

    def __init__(self):
        super().__init__()
        given = Projected().lstm
        self.lstm = nn.LSTM(FEATURES, HIDDEN)
        self.lstm.weight_ih_l0, self.lstm.bias_ih_l0 = given.weight_ih_l0, given.bias_ih_l0
        self.lstm.bias_hh_l0 = given.bias_hh_l0
        self.lstm.weight_hh_l0 = nn.Parameter(given.weight_hh_l0 @ given.weight_hr_l0)
        self.projection = nn.Linear(HIDDEN, len(given.weight_hr_l0), bias=False)
        self.projection.weight = given.weight_hr_l0

    def forward(self, x):
        return self.projection(self.lstm(x)[0])


def way_out():
    return export(WayOut(), torch.rand(STEPS, 2, FEATURES), input_names=["x"], output_names=["y"])


def test_the_cut_lstm_is_named():
    before = dynamo()
    after, report = operate(before, RTX, only=[46])
    assert after is before
    (record,) = report.records
    assert record.outcome is Outcome.REFUSED
    assert "projection" in record.why
    assert "weight_hh @ weight_hr" in record.what


def test_the_way_out_is_the_same_function():
    feed = feeds(np.random.default_rng(0))
    found, expected = Model(way_out())(feed)["y"], torchs_answer(feed)["y"]
    assert np.abs(found - expected).max() <= 1e-6 * np.abs(expected).max()


@needs_rtx
def test_tensorrt_takes_the_way_out():
    assert rtx(way_out()).stage == "ok"


def test_an_lstm_without_projection_stays():
    assert_untouched(way_out(), 46)
