"""Row 16: what the table does not show: types, other TopKs, and values that nobody reads."""

import numpy as np
import pytest
from onnx import TensorProto, helper
from surgery_graphs import FLOAT, INT64, assert_untouched, make_model, ops, surgered, worst

from components.surgery.evaluate import Model
from components.surgery.surgeries.row16_top_k import MAX_K

INT32, FLOAT16 = TensorProto.INT32, TensorProto.FLOAT16


def top(count, kind=FLOAT, outputs=("values", "indices"), size=5000, **attributes):
    node = helper.make_node("TopK", ["x", "k"], ["values", "indices"], **attributes)
    made = {name: (kind if name == "values" else INT64, None) for name in outputs}
    return make_model([node], {"x": (kind, [1, size])}, made, {"k": np.array([count])})


@pytest.mark.parametrize(("kind", "dtype"), [(INT32, np.int32), (INT64, np.int64), (FLOAT16, np.float16)])
@pytest.mark.parametrize("largest", [0, 1])
def test_other_types_and_both_directions(kind, dtype, largest):
    before = top(4500, kind, largest=largest)
    rng = np.random.default_rng(0)
    feeds = [{"x": rng.integers(-300, 300, (1, 5000)).astype(dtype)}]
    assert worst(before, surgered(before), feeds) == 0


def test_only_the_indices_are_read():
    before = top(4500, outputs=["indices"])
    after = surgered(before)
    assert "GatherElements" not in ops(after)
    assert worst(before, after, [{"x": np.random.default_rng(0).integers(0, 9, (1, 5000)).astype(np.float32)}]) == 0


def test_a_small_k_stays():
    assert_untouched(top(MAX_K), 16)


def test_three_steps_never_return_an_index_twice():
    after = surgered(top(11000, size=11000))
    x = np.full((1, 11000), -np.inf, np.float32)
    assert np.array_equal(Model(after)({"x": x})["indices"], np.arange(11000)[None])


def test_an_order_that_is_left_open_becomes_the_sorted_one():
    after = surgered(top(4500, sorted=0))
    x = np.random.default_rng(0).standard_normal((1, 5000)).astype(np.float32)
    assert np.array_equal(np.sort(Model(after)({"x": x})["values"]), np.sort(x)[:, -4500:])
