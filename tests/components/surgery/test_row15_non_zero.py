"""Row 15: NonZero and boolean indexing: exact where it can be, refused with the reason where it cannot."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import helper
from surgery_graphs import (
    BOOL,
    FLOAT,
    INT64,
    assert_untouched,
    export,
    make_model,
    needs_rtx,
    ops,
    rtx,
    surgered,
    worst,
)
from torch import nn

from components.core.contracts.job import Runtime
from components.surgery.evaluate import Model
from components.surgery.operate import operate
from components.surgery.surgery import TOLERANCE, Outcome

SHAPE = (6, 5)


class MaskedUpdate(nn.Module):
    def forward(self, x, mask):
        y = x.clone()
        y[mask] = x[mask] * 2 + 1
        return y


class MaskedSum(nn.Module):
    def forward(self, x, mask):
        return x[mask].sum()


class MaskedMean(nn.Module):
    def forward(self, x, mask):
        return x[mask].mean()


class MaskedRowsMaximum(nn.Module):
    def forward(self, x, mask):
        return x[mask[:, 0]].amax(0)


class RowsWritten(nn.Module):
    def forward(self, x, mask):
        index = torch.where(mask[:, 0])[0]
        return torch.zeros_like(x).index_put((index,), x[index] + 1)


class Scattered(nn.Module):
    def forward(self, x, mask):
        index = torch.where(mask[:, 1])[0]
        return torch.zeros(SHAPE[0]).scatter(0, index, x[index, 2])


class Counted(nn.Module):
    def forward(self, x, mask):
        return torch.nonzero(mask).shape[0] + x.sum()


class ChosenTwice(nn.Module):
    """The second mask is over rows that the first has chosen."""

    def forward(self, x, mask):
        rows = x[mask[:, 0]]
        rows = rows[rows[:, 1] > 0]
        return (rows[:, 2] * 2).sum()


EXACT = (MaskedUpdate, MaskedSum, MaskedMean, MaskedRowsMaximum, RowsWritten, Scattered, Counted, ChosenTwice)


class Chosen(nn.Module):
    """The chosen rows leave the graph."""

    def forward(self, x, mask):
        return x[mask[:, 0]]


class Sorted(nn.Module):
    def forward(self, x, mask):
        return x[mask].sort().values


def exported(module):
    torch.manual_seed(0)
    return export(module(), torch.randn(SHAPE), torch.rand(SHAPE) < 0.5, input_names=["x", "mask"])


def feed(seed, share=0.5):
    rng = np.random.default_rng(seed)
    return {"x": rng.standard_normal(SHAPE).astype(np.float32), "mask": rng.random(SHAPE) < share}


@pytest.fixture(scope="module", params=EXACT, ids=lambda module: module.__name__)
def exact(request):
    model = exported(request.param)
    assert "NonZero" in ops(model)
    return model, surgered(model)


def test_masked_writes_and_reductions_are_equal(exact):
    before, after = exact
    assert {"NonZero", "ScatterND", "ScatterElements"}.isdisjoint(ops(after))
    assert worst(before, after, [feed(seed) for seed in range(10)] + [feed(0, 1.0)]) < TOLERANCE


def test_nothing_selected_is_equal_too(exact):
    before, after = exact
    try:
        worst(before, before, [feed(0, 0.0)])
    except Exception:
        pytest.skip("ONNX Runtime does not run the original on an empty selection")
    expected, found = Model(before)(feed(0, 0.0)), Model(after)(feed(0, 0.0))
    for name, value in expected.items():
        if not np.isneginf(value).all():  # the largest of nothing: the lowest number stands for minus infinity
            np.testing.assert_allclose(found[name], value, rtol=1e-6)


@needs_rtx
def test_tensorrt_rejects_non_zero_and_builds_the_result(exact):
    before, after = exact
    verdict = rtx(before)
    assert verdict.stage == "reject"
    assert "NonZero plugin creator version 1 was not found" in verdict.words
    assert rtx(after)[::2] == ("ok", 0)


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**31), st.floats(0.0, 1.0))
def test_masked_update_is_equal_for_any_mask(update_sessions, seed, share):
    before, after = update_sessions
    inputs = feed(seed, share)
    for name, value in before(inputs).items():
        np.testing.assert_array_equal(after(inputs)[name], value)


@pytest.fixture(scope="module")
def update_sessions():
    model = exported(MaskedUpdate)
    return Model(model), Model(surgered(model))


@pytest.mark.parametrize(("module", "rows"), [(Chosen, SHAPE[0]), (Sorted, SHAPE[0] * SHAPE[1])])
def test_rows_that_leave_the_graph_are_padded_with_the_first(module, rows):
    before = exported(module)
    after = surgered(before)
    for seed in range(5):
        old, new = Model(before)(feed(seed)), Model(after)(feed(seed))
        ((name, expected),) = old.items()
        assert new[f"{name}_rows"].tolist() == [len(expected)]
        assert new[name].shape == (rows, *expected.shape[1:])
        np.testing.assert_array_equal(new[name][: len(expected)], expected)
        np.testing.assert_array_equal(new[name][len(expected) :], np.repeat(expected[:1], rows - len(expected), 0))


def test_nothing_selected_leaves_padding_only():
    found = Model(surgered(exported(Chosen)))(feed(0, 0.0))
    assert [value.tolist() for name, value in found.items() if name.endswith("_rows")] == [[0]]


@needs_rtx
def test_padded_rows_build():
    assert rtx(exported(Chosen)).stage == "reject"
    assert rtx(surgered(exported(Chosen)))[::2] == ("ok", 0)


def test_rows_against_rows_have_no_rule_and_are_refused():
    class Compared(nn.Module):
        """Every chosen row with every other: two axes of unknown size."""

        def forward(self, x, mask):
            rows = x[mask[:, 0]]
            return (rows.unsqueeze(0) - rows.unsqueeze(1)).abs().sum(-1)

    model = exported(Compared)
    after, report = operate(model, Runtime.TENSORRT)
    assert "NonZero" in ops(after)
    (record,) = report.left
    assert record.outcome is Outcome.REFUSED
    assert record.node == "/Sub"
    assert "the Sub '/Sub' combines rows that are chosen in different ways" in record.why
    assert "torch.where" in record.what
    assert worst(model, after, [feed(seed) for seed in range(3)]) == 0


def test_a_constant_mask_is_folded():
    nodes = [
        helper.make_node("NonZero", ["mask"], ["index"]),
        helper.make_node("Transpose", ["index"], ["rows"]),
        helper.make_node("GatherND", ["x", "rows"], ["y"]),
    ]
    constants = {"mask": np.array([[True, False, True], [False, False, True]])}
    before = make_model(nodes, {"x": (FLOAT, [2, 3])}, {"y": (FLOAT, None)}, constants)
    for runtime in (Runtime.TENSORRT_RTX, Runtime.OPENVINO):
        after = surgered(before, runtime)
        assert ops(after) == {"GatherND"}
        assert worst(before, after, [{"x": np.arange(6, dtype=np.float32).reshape(2, 3)}]) == 0


@needs_rtx
def test_a_mask_of_ones_of_open_size_is_a_range():
    nodes = [
        helper.make_node("Shape", ["x"], ["size"]),
        helper.make_node("ConstantOfShape", ["size"], ["ones"], value=helper.make_tensor("one", INT64, [1], [1])),
        helper.make_node("NonZero", ["ones"], ["index"], name="arange"),
        helper.make_node("Cast", ["index"], ["number"], to=FLOAT),
        helper.make_node("Add", ["x", "number"], ["y"]),
    ]
    before = make_model(nodes, {"x": (FLOAT, ["n"])}, {"y": (FLOAT, [1, "n"])})
    assert rtx(before).stage == "reject"
    after = surgered(before)
    assert "Range" in ops(after)
    assert rtx(after).stage == "ok"
    feeds = [{"x": np.linspace(0, 1, size, dtype=np.float32)} for size in (1, 2, 9)]
    assert worst(before, after, feeds) == 0


def test_a_mask_of_open_shape_is_refused():
    nodes = [helper.make_node("NonZero", ["mask"], ["index"])]
    model = make_model(nodes, {"mask": (BOOL, ["n"])}, {"index": (INT64, None)})
    after, report = operate(model, Runtime.TENSORRT)
    assert after is model
    assert "the shape of its mask is not fixed" in report.records[0].why
    assert report.records[0].what.startswith("pin the open inputs (--input-shape, target.input_shape): mask [n]; or ")


def test_the_input_shape_is_no_way_out_where_the_shapes_are_fixed():
    turn = helper.make_node("Einsum", ["index"], ["y"], equation="ij->ji")
    model = make_model(
        [helper.make_node("NonZero", ["mask"], ["index"]), turn], {"mask": (BOOL, [4])}, {"y": (INT64, None)}
    )
    after, report = operate(model, Runtime.TENSORRT, only=[15])
    assert after is model
    assert "no rule" in report.records[0].why
    assert "--input-shape" not in report.records[0].what


def test_graphs_without_the_pattern_are_untouched():
    nodes = [helper.make_node("Where", ["mask", "x", "x"], ["y"])]
    given = {"x": (FLOAT, [3]), "mask": (BOOL, [3])}
    assert_untouched(make_model(nodes, given, {"y": (FLOAT, [3])}), 15)
