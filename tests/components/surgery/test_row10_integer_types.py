"""Row 10: integer types that TensorRT lacks."""

import numpy as np
import pytest
from onnx import TensorProto, helper
from surgery_graphs import FLOAT, INT64, RTX, assert_untouched, make_model, needs_rtx, rtx, surgered

from components.surgery.evaluate import Model
from components.surgery.operate import operate
from components.surgery.surgery import Outcome

TYPES = [TensorProto.INT16, TensorProto.UINT16, TensorProto.UINT32, TensorProto.UINT64]
NAMES = [TensorProto.DataType.Name(kind) for kind in TYPES]
INTERFACE = {TensorProto.INT16: TensorProto.INT32, TensorProto.UINT16: TensorProto.INT32}


@needs_rtx
@pytest.mark.parametrize("kind", TYPES, ids=NAMES)
def test_the_callers_type_is_the_next_that_tensorrt_reads(kind):
    nodes = [helper.make_node("Concat", ["x", "c"], ["y"], axis=0)]
    constant = np.array([1, 2], helper.tensor_dtype_to_np_dtype(kind))
    before = make_model(nodes, {"x": (kind, [3])}, {"y": (kind, [5])}, {"c": constant})
    assert rtx(before).stage == "reject"
    after = surgered(before)
    wanted = INTERFACE.get(kind, INT64)
    assert [v.type.tensor_type.elem_type for v in (*after.graph.input, *after.graph.output)] == [wanted] * 2
    assert rtx(after)[::2] == ("ok", 0)
    x = np.array([0, 5, 99], constant.dtype)
    np.testing.assert_array_equal(Model(after)({"x": x})["y"], Model(before)({"x": x})["y"])


def test_the_report_says_what_the_caller_feeds_now():
    node = helper.make_node("Cast", ["x"], ["y"], to=FLOAT)
    model = make_model([node], {"x": (TensorProto.INT16, [3])}, {"y": (FLOAT, [3])})
    _, report = operate(model, RTX)
    (record,) = report.records
    assert record.outcome is Outcome.DONE
    assert "int32 for 'x'" in record.what


def test_a_constant_above_int64_is_refused():
    nodes = [helper.make_node("Cast", ["x"], ["z"], to=TensorProto.UINT64, name="widen")]
    nodes += [helper.make_node("Equal", ["z", "c"], ["y"])]
    constants = {"c": np.array(2**63 + 5, np.uint64)}
    model = make_model(nodes, {"x": (INT64, [3])}, {"y": (TensorProto.BOOL, [3])}, constants)
    after, report = operate(model, RTX, only=[10])
    assert after is model
    assert [(record.outcome, record.node) for record in report.records] == [(Outcome.REFUSED, "widen")]


def test_other_integers_are_untouched():
    for kind in (INT64, TensorProto.INT32, TensorProto.INT8, TensorProto.UINT8):
        node = helper.make_node("Cast", ["x"], ["y"], to=FLOAT)
        assert_untouched(make_model([node], {"x": (kind, [3])}, {"y": (FLOAT, [3])}), 10)
