"""Row 35: any transform; what is refused."""

import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from surgery_graphs import RTX, ops, surgered, worst

from components.surgery.evaluate import Model
from components.surgery.operate import operate
from components.surgery.surgery import Outcome

sys.path.insert(0, str(Path(__file__).with_name("table")))
from cases_row35 import dft


@settings(max_examples=50, deadline=None)
@given(
    shape=st.lists(st.integers(1, 9), min_size=2, max_size=4),
    parts=st.integers(1, 2),
    mode=st.sampled_from([{}, {"inverse": 1}, {"onesided": 1}]),
    opset=st.sampled_from([17, 20]),
    draw=st.data(),
)
def test_any_transform(shape, parts, mode, opset, draw):
    axis = draw.draw(st.integers(0, len(shape) - 1))
    length = draw.draw(st.none() | st.integers(1, 12))
    parts = 1 if mode.get("onesided") else parts
    before = dft([*shape, parts], opset, axis=axis, length=length, **mode)
    after = surgered(before, only=[35])
    assert "DFT" not in ops(after)
    x = np.random.default_rng(0).standard_normal((*shape, parts)).astype(np.float32)
    assert worst(before, after, [{"x": x}]) <= 1e-5


def test_a_long_signal_is_as_exact_as_a_short_one():
    before = dft([1, 2000, 1], onesided=1)
    x = np.random.default_rng(0).standard_normal((1, 2000, 1)).astype(np.float32)
    found = Model(surgered(before))({"x": x})["y"]
    exact = np.fft.rfft(x[0, :, 0].astype(np.float64))
    assert np.abs(found[0, :, 0] + 1j * found[0, :, 1] - exact).max() <= 2e-6 * np.abs(exact).max()


@pytest.mark.parametrize(
    ("shape", "words"), [([1, "n", 1], "not fixed"), ([1, 20000, 2], "MiB"), ([1, 8, "c"], "real or complex")]
)
def test_what_is_left_says_why(shape, words):
    before = dft(shape)
    after, report = operate(before, RTX, only=[35])
    assert after is before
    (record,) = report.records
    assert (record.outcome, record.node) == (Outcome.REFUSED, "dft")
    assert words in record.why
