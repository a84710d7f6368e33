"""Each rule for rows whose number depends on data: equal to ONNX Runtime on the operator itself, and static.

A module gets ``x`` [N, C] and ``mask`` [N] and does something to the rows ``x[mask]``.
"""

import numpy as np
import pytest
import torch
import torchvision
from onnx import helper
from surgery_graphs import BOOL, FLOAT, INT64, export, make_model, needs_rtx, ops, rtx, surgered, worst
from torch import nn
from torch.nn import functional

from components.core.contracts.job import Runtime
from components.surgery.evaluate import EvaluationError, Model
from components.surgery.operate import operate
from components.surgery.proof import difference

ROWS, COLUMNS = 12, 4
DYNAMIC = {"NonZero", "NonMaxSuppression", "If", "ScatterND", "ScatterElements"}


def arithmetic(x, mask):
    rows = x[mask]
    return ((rows * 2 - 1).abs().sqrt() / 3 + rows.clamp(-0.5, 0.5)).where(rows > 0, rows).sum(0)


def softmax_and_product(x, mask):
    weight = torch.linspace(-1, 1, COLUMNS * 3).reshape(COLUMNS, 3)
    return (x[mask].softmax(1) @ weight).amax(0)


def linear_and_norm(x, mask):
    weight = torch.linspace(-1, 1, COLUMNS * 3).reshape(3, COLUMNS)
    rows = functional.layer_norm(x[mask], (COLUMNS,))
    return functional.linear(rows, weight, torch.ones(3)).mean(0)


def twice(x, mask):
    rows = x[mask]
    rows = rows[rows[:, 0] > 0]
    return rows[rows[:, 1] > 0].sum(0)


def columns(x, mask):
    first, last = x[mask].split([1, 3], 1)
    return (torch.cat([last, first], 1)[:, ::2].unsqueeze(2).permute(2, 0, 1).squeeze(0) * first).sum(0)


def best_rows(x, mask):
    rows = x[mask]
    scores, place = rows[:, 0].topk(torch.ops.aten._shape_as_tensor(rows)[0].clamp(max=3))
    return scores, rows[place]


def in_order(x, mask):
    return x[mask][:, 0].sort(descending=True).values


def first_rows(x, mask):
    return x[mask][:3]


def two_choices(x, mask):
    both = torch.cat([x[mask], x[~mask] * 2, x])
    return both[both[:, 0] > 0].sum(0), both[:5]


def flattened(x, mask):
    rows = x[mask]
    flat = rows.reshape(-1)
    back = (flat * 2).reshape(-1, COLUMNS)
    return flat[flat > 0.5].sum(), back.amax(0)


def pairs(x, mask):
    """Rows and columns of the elements above a threshold, as detectors choose boxes and classes."""
    rows = x[mask]
    row, column = torch.where(rows > 0.3)
    return rows[row].sum(0), column.sum(), rows[row, column]


def counted(x, mask):
    return x[mask].shape[0] * 2 + x.sum()


def written_back(x, mask):
    places = torch.where(mask)[0]
    result = torch.zeros_like(x)
    result[places] = x[places] + 1
    return result


def levels(x, mask):
    """Each row handled by the level that it belongs to, and put back, as in a RoI pooling of several levels."""
    rows = x[mask]
    level = (rows[:, 0] > 0).long()
    result = torch.zeros_like(rows)
    for number in range(2):
        places = torch.where(level == number)[0]
        result[places] = rows[places] * (number + 2)
    return result.sum(0), result


def written_by_rank(x, mask):
    rows = x[mask]
    places = rows[:, 0].topk(torch.ops.aten._shape_as_tensor(rows)[0].clamp(max=3)).indices
    return torch.zeros_like(rows).index_put((places,), rows[places] + 1).sum(0)


def positions(x, mask):
    return torch.where(mask & (x[:, 0] > -9))[0] * 2


def second_positions(x, mask):
    """Numbers of rows within those that were chosen before, not of all."""
    return torch.where(x[mask][:, 0] > 0)[0]


def expanded(x, mask):
    rows = x[mask]
    weight = torch.arange(COLUMNS, dtype=x.dtype).reshape(1, -1).expand_as(rows)
    return (rows * weight).sum(0), torch.ones_like(rows[:, 0]) * 2


def running(x, mask):
    return x[mask].cumsum(0)


def best_one(x, mask):
    rows = x[mask]
    return rows[rows[:, 0].argmax()]


def suppressed(x, mask):
    boxes = torch.cat([x[:, :2], x[:, :2] + x[:, 2:].abs() + 0.5], 1)[mask]
    scores = x[mask][:, 3]
    keep = torchvision.ops.nms(boxes, scores, 0.3)[:5]
    return boxes[keep], scores[keep]


def suppressed_by_class(x, mask):
    boxes = torch.cat([x[:, :2], x[:, :2] + x[:, 2:].abs() + 0.5], 1)[mask]
    scores, classes = x[mask][:, 3], (x[mask][:, 0] > 0).long()
    keep = torchvision.ops.batched_nms(boxes, scores, classes, 0.2)
    return boxes[keep], scores[keep], classes[keep]


def pooled(x, mask):
    boxes = torch.cat([x[:, :2] + 3, x[:, :2] + 3 + x[:, 2:].abs()], 1)[mask]
    features = torch.linspace(0, 1, 2 * 8 * 8).reshape(1, 2, 8, 8) * x.sum()
    return torchvision.ops.roi_align(features, [boxes], 2, 1.0, 2).flatten(1)


RULES = [
    *(arithmetic, softmax_and_product, linear_and_norm, twice, columns, best_rows, in_order, first_rows, two_choices),
    *(flattened, pairs, counted, written_back, levels, written_by_rank, positions, second_positions, expanded, running),
    *(best_one, suppressed, suppressed_by_class, pooled),
]


class Module(nn.Module):
    def __init__(self, function):
        super().__init__()
        self.function = function

    def forward(self, x, mask):
        return self.function(x, mask)


def feed(seed, share):
    rng = np.random.default_rng(seed)
    return {"x": rng.standard_normal((ROWS, COLUMNS)).astype(np.float32), "mask": rng.random(ROWS) < share}


def feeds():
    return [feed(seed, share) for seed, share in enumerate((0.5, 0.5, 0.3, 0.7, 0.9, 1.0, 0.1, 0.0))]


@pytest.fixture(scope="module", params=RULES, ids=lambda rule: rule.__name__)
def rule(request):
    given = feed(0, 0.5)
    before = export(
        Module(request.param), torch.from_numpy(given["x"]), torch.from_numpy(given["mask"]), input_names=["x", "mask"]
    )
    assert "NonZero" in ops(before)
    return before, surgered(before)


def test_results_are_equal_for_any_mask(rule):
    before, after = Model(rule[0]), Model(rule[1])
    compared = 0
    for inputs in feeds():
        try:
            old = before(inputs)
        except EvaluationError:
            continue  # nothing selected, where the operator itself wants something
        new = after(inputs)
        compared += 1
        for name, expected in old.items():
            if inputs["mask"].any() or expected.size == 0:
                assert difference(expected, new[name], padded=True) < 1e-5
            if f"{name}_rows" in new:
                assert new[f"{name}_rows"].tolist() == [len(expected)]
    assert compared >= 7


def test_no_size_depends_on_data(rule):
    assert DYNAMIC.isdisjoint(ops(rule[1]) - {"ScatterElements", "ScatterND"})
    shapes = [value.type.tensor_type.shape for value in (*rule[1].graph.value_info, *rule[1].graph.output)]
    assert all(size.HasField("dim_value") for shape in shapes for size in shape.dim)


@needs_rtx
def test_tensorrt_builds_it(rule):
    assert rtx(rule[0]).stage == "reject"
    assert rtx(rule[1])[::2] == ("ok", 0)


def two_regions():
    """Two masks that have nothing to do with one another; what follows the second has no rule."""
    nodes = [
        helper.make_node("NonZero", ["first"], ["a"], name="good"),
        helper.make_node("Squeeze", ["a", "zero"], ["a1"]),
        helper.make_node("Gather", ["x", "a1"], ["a2"]),
        helper.make_node("ReduceMax", ["a2"], ["y"], keepdims=0),
        helper.make_node("NonZero", ["second"], ["b"], name="bad"),
        helper.make_node("Unique", ["b"], ["z"], name="wall"),
    ]
    given = {"x": (FLOAT, [5]), "first": (BOOL, [5]), "second": (BOOL, [5])}
    return make_model(nodes, given, {"y": (FLOAT, []), "z": (INT64, None)}, {"zero": np.array([0])})


def test_a_region_without_a_rule_does_not_hold_up_another():
    before = two_regions()
    after, report = operate(before, Runtime.TENSORRT_RTX, only=[15])
    assert [node.name for node in after.graph.node if node.op_type == "NonZero"] == ["bad"]
    assert [record.node for record in report.done] == ["good"]
    (left,) = report.left
    assert left.node == "wall"
    assert "from the NonZero 'bad'" in left.why
    inputs = {"x": np.arange(5, dtype=np.float32), "first": np.arange(5) < 3, "second": np.arange(5) > 1}
    for name, value in Model(before)(inputs).items():
        np.testing.assert_array_equal(Model(after)(inputs)[name], value)


def emptiness(other):
    """``If(no rows) other else the rows``."""

    def branch(name, node, constants):
        initializers = make_model([], {}, {}, constants).graph.initializer
        output = helper.make_tensor_value_info(node.output[0], FLOAT, None)
        return helper.make_graph([node], name, [], [output], initializers)

    nodes = [
        helper.make_node("NonZero", ["mask"], ["a"]),
        helper.make_node("Squeeze", ["a", "zero"], ["a1"]),
        helper.make_node("Gather", ["x", "a1"], ["rows"]),
        helper.make_node("Size", ["rows"], ["size"]),
        helper.make_node("Equal", ["size", "nought"], ["empty"]),
        helper.make_node(
            "If",
            ["empty"],
            ["y"],
            name="branch",
            then_branch=branch("then", helper.make_node("Identity", ["e"], ["t"]), {"e": other}),
            else_branch=branch("else", helper.make_node("Neg", ["rows"], ["n"]), {}),
        ),
    ]
    constants = {"zero": np.array([0]), "nought": np.array(0)}
    return make_model(nodes, {"x": (FLOAT, [5]), "mask": (BOOL, [5])}, {"y": (FLOAT, None)}, constants)


def test_the_branch_for_no_rows_goes_where_it_gives_no_rows():
    after = surgered(emptiness(np.zeros(0, np.float32)))
    assert {"If", "NonZero"}.isdisjoint(ops(after))
    x = np.arange(5, dtype=np.float32)
    found = Model(after)({"x": x, "mask": x > 2})
    np.testing.assert_array_equal(found["y"][:2], [-3, -4])
    assert found["y_rows"].tolist() == [2]
    assert Model(after)({"x": x, "mask": x > 9})["y_rows"].tolist() == [0]


def test_a_branch_that_gives_something_else_for_no_rows_is_refused():
    after, report = operate(emptiness(np.ones(2, np.float32)), Runtime.TENSORRT_RTX, only=[15])
    assert "If" in ops(after)
    assert "computes something else where there are no rows" in report.left[0].why
    assert report.left[0].node == "branch"


def test_regions_that_share_what_was_written_are_proven_each():
    """Two boolean sums over the same tensor: the second region uses what the first one wrote."""
    nodes = [helper.make_node("Relu", ["x"], ["r"]), helper.make_node("Greater", ["r", "zero"], ["m"])]
    for name in ("a", "b"):
        nodes += [
            helper.make_node("NonZero", ["m"], [f"at_{name}"]),
            helper.make_node("Transpose", [f"at_{name}"], [f"rows_{name}"], perm=[1, 0]),
            helper.make_node("GatherND", ["r", f"rows_{name}"], [f"picked_{name}"]),
            helper.make_node("ReduceSum", [f"picked_{name}"], [f"sum_{name}"], keepdims=0),
        ]
    nodes.append(helper.make_node("Add", ["sum_a", "sum_b"], ["y"]))
    constants = {"zero": np.array(0.3, np.float32)}
    before = make_model(nodes, {"x": (FLOAT, [6, 5])}, {"y": (FLOAT, [])}, constants)
    after = surgered(before)
    assert "NonZero" not in ops(after)
    feed = {"x": np.random.default_rng(0).standard_normal((6, 5)).astype(np.float32)}
    assert worst(before, after, [feed]) < 1e-5
