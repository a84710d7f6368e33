"""Row 17: a K that is one and a K that is none."""

import sys
from pathlib import Path

import numpy as np
import pytest
from onnx import helper, numpy_helper
from surgery_graphs import FLOAT, INT64, assert_untouched, make_model, surgered

sys.path.insert(0, str(Path(__file__).with_name("table")))
from cases_row17 import CASES, halved


def constants_of(model):
    return {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}


@pytest.mark.parametrize(("case", "count"), zip(CASES, (50, 4, 4), strict=True))
def test_k_becomes_an_initializer(case, count):
    after = surgered(case.model())
    (node,) = [node for node in after.graph.node if node.op_type == "TopK"]
    assert constants_of(after)[node.input[1]] == [count]


def test_the_smaller_of_a_number_and_an_open_dimension_stays():
    """From 1000 columns on it is constant, but not below."""
    nodes = [
        helper.make_node("Shape", ["x"], ["shape"]),
        helper.make_node("Slice", ["shape", "one", "two"], ["columns"]),
        helper.make_node("Min", ["columns", "most"], ["k"]),
        helper.make_node("TopK", ["x", "k"], ["values", "indices"], axis=1),
    ]
    constants = {"one": np.array([1]), "two": np.array([2]), "most": np.array([1000])}
    outputs = {"values": (FLOAT, None), "indices": (INT64, None)}
    assert_untouched(make_model(nodes, {"x": (FLOAT, [3, "n"])}, outputs, constants), 17)


def test_a_k_from_outside_stays():
    node = helper.make_node("TopK", ["x", "k"], ["values", "indices"])
    outputs = {"values": (FLOAT, None), "indices": (INT64, None)}
    assert_untouched(make_model([node], {"x": (FLOAT, [3, 9]), "k": (INT64, [1])}, outputs), 17)


def test_two_open_dimensions_that_cancel_by_name_only():
    """Rows over columns is 1 only where both have one name."""
    model = halved()
    model.graph.input[0].type.tensor_type.shape.dim[1].dim_param = "m"
    assert_untouched(model, 17)
