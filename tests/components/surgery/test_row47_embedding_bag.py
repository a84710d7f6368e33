"""Row 47: loops that are no bags, bags that are too large, bags that are empty."""

import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from surgery_graphs import RTX, assert_untouched, export, ops, surgered, worst
from torch import nn

from components.surgery.operate import operate
from components.surgery.surgeries import row47_embedding_bag
from components.surgery.surgery import Outcome

sys.path.insert(0, str(Path(__file__).with_name("table")))
from cases_row34 import growing
from cases_row47 import Bag, dynamo, feeds, traced


class Sums(nn.Module):
    """A loop that reduces, over parts that no offsets cut."""

    def forward(self, x):
        return _sums(x)


@torch.jit.script
def _sums(x):
    total = x[0]
    for index in range(3):
        total = torch.tanh(total) + x[index:].sum(0)
    return total


@pytest.mark.parametrize("model", [growing, lambda: export(Sums(), torch.rand(5, 3))])
def test_other_loops_stay(model):
    assert_untouched(model(), 47)


@pytest.mark.parametrize("model", [lambda: traced(Bag("max")), lambda: dynamo("max"), lambda: dynamo("mean")])
def test_empty_bags_are_what_the_exporter_made_of_them(model):
    before = model()
    after = surgered(before)
    assert not ops(after) & {"Loop", "If"}
    feed = feeds(np.random.default_rng(0))
    feed["offsets"] = np.array([0, 0, 12, 12])
    assert worst(before, after, [feed]) <= 1e-6


def test_a_maximum_of_too_much_is_refused(monkeypatch):
    monkeypatch.setattr(row47_embedding_bag, "MAX_TABLE", 4 * 12 * 5 - 1)
    before = dynamo("max")
    after, report = operate(before, RTX, only=[47])
    assert after is before
    assert [record.outcome for record in report.records] == [Outcome.REFUSED]
    assert "MiB" in report.records[0].why
