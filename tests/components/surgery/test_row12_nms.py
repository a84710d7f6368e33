"""Row 12: NonMaxSuppression, against ONNX Runtime's own and TensorRT-RTX's builder."""

import numpy as np
import pytest
import torch
import torchvision
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
from components.surgery.surgeries.row12_non_max_suppression import fixed_point_probe
from components.surgery.surgery import Options, Outcome

COUNT = 48


class Scatter(nn.Module):
    def forward(self, boxes, scores):
        keep = torchvision.ops.nms(boxes, scores, 0.5)
        return scores * torch.zeros(COUNT).scatter(0, keep, 1.0)


class IndexPut(nn.Module):
    def forward(self, boxes, scores):
        mask = torch.zeros_like(scores)
        mask[torchvision.ops.nms(boxes, scores, 0.5)] = 1.0
        return torch.where(mask > 0, scores, -1.0)


class BoolIndexPut(nn.Module):
    def forward(self, boxes, scores):
        mask = torch.zeros_like(scores, dtype=torch.bool)
        mask[torchvision.ops.nms(boxes, scores, 0.5)] = True
        return torch.where(mask, scores, -1.0)


class IndexFill(nn.Module):
    def forward(self, boxes, scores):
        return scores * torch.zeros(scores.shape[0]).index_fill(0, torchvision.ops.nms(boxes, scores, 0.5), 1.0)


class ScatterOnes(nn.Module):
    def forward(self, boxes, scores):
        keep = torchvision.ops.nms(boxes, scores, 0.5)
        return scores * torch.zeros(COUNT).scatter(0, keep, torch.ones_like(keep, dtype=torch.float32))


class KeptRows(nn.Module):
    """Not a mask: the kept boxes themselves, in place."""

    def forward(self, boxes, scores):
        keep = torchvision.ops.nms(boxes, scores, 0.5)
        return torch.zeros_like(boxes).index_put((keep,), boxes[keep] * 2 + 1)


class Batched(nn.Module):
    def forward(self, boxes, scores):
        keep = torchvision.ops.batched_nms(boxes, scores, torch.arange(COUNT) % 3, 0.5)
        return scores * torch.zeros(COUNT).scatter(0, keep, 1.0)


class Selected(nn.Module):
    """The kept boxes leave the graph: their number is data-dependent in the outputs."""

    def forward(self, boxes, scores):
        keep = torchvision.ops.nms(boxes, scores, 0.5)[:20]
        return boxes[keep], scores[keep]


IDIOMS = (Scatter, IndexPut, BoolIndexPut, IndexFill, ScatterOnes, KeptRows, Batched)


def random_boxes(rng, count=COUNT, *, grid=False):
    corner = rng.integers(0, 12, (count, 2)) if grid else rng.random((count, 2)) * 10
    size = rng.integers(0, 8, (count, 2)) if grid else rng.random((count, 2)) * 6
    boxes = np.concatenate([corner, corner + size], 1).astype(np.float32)
    flipped = rng.random(count) < 0.2
    boxes[flipped] = boxes[flipped][:, [2, 3, 0, 1]]
    return boxes


def random_scores(rng, shape=(COUNT,), *, ties=False):
    return ((rng.integers(0, 5, shape) / 4) if ties else rng.random(shape)).astype(np.float32)


@pytest.fixture(scope="module", params=IDIOMS, ids=lambda module: module.__name__)
def idiom(request):
    model = export(
        request.param(),
        torch.from_numpy(random_boxes(np.random.default_rng(0))),
        torch.rand(COUNT),
        input_names=["boxes", "scores"],
    )
    return model, surgered(model)


def test_every_spelling_of_the_mask_idiom_becomes_static_and_equal(idiom):
    before, after = idiom
    assert {"NonMaxSuppression", "NonZero", "ScatterElements", "ScatterND"}.isdisjoint(ops(after))
    rng = np.random.default_rng(1)
    feeds = [
        {"boxes": random_boxes(rng, grid=grid), "scores": random_scores(rng, ties=ties)}
        for grid in (False, True)
        for ties in (False, True)
        for _ in range(5)
    ]
    assert worst(before, after, feeds) == 0


@needs_rtx
def test_tensorrt_cannot_build_the_idiom_and_builds_the_result(idiom):
    before, after = idiom
    verdict = rtx(before)
    assert verdict.stage in ("build", "reject")
    assert rtx(after)[::2] == ("ok", 0)


def nms_model(batch, classes, count, iou, *, score_threshold=None, limit=None, centered=False):
    """All three index columns are scattered into a keep-mask [batch, classes, count]."""
    inputs = ["boxes", "scores", "limit", "iou"] + (["threshold"] if score_threshold is not None else [])
    nodes = [
        helper.make_node("NonMaxSuppression", inputs, ["selected"], name="nms", center_point_box=int(centered)),
        helper.make_node("Shape", ["selected"], ["size"]),
        helper.make_node("Slice", ["size", "zero", "one"], ["rows"]),
        helper.make_node("Expand", ["value", "rows"], ["ones"]),
        helper.make_node("ScatterND", ["zeros", "selected", "ones"], ["mask"]),
    ]
    constants = {
        "limit": np.array([limit or count]),
        "iou": np.array([iou], np.float32),
        "zero": np.array([0]),
        "one": np.array([1]),
        "value": np.array(1, np.float32),
        "zeros": np.zeros((batch, classes, count), np.float32),
    }
    if score_threshold is not None:
        constants["threshold"] = np.array([score_threshold], np.float32)
    given = {"boxes": (FLOAT, [batch, count, 4]), "scores": (FLOAT, [batch, classes, count])}
    return make_model(nodes, given, {"mask": (FLOAT, [batch, classes, count])}, constants)


CASES = [
    {"batch": 1, "classes": 1, "count": 1, "iou": 0.5},
    {"batch": 1, "classes": 1, "count": 2, "iou": 0.0},
    {"batch": 1, "classes": 1, "count": 30, "iou": 0.5},
    {"batch": 1, "classes": 1, "count": 30, "iou": 0.25, "score_threshold": 0.5},
    {"batch": 1, "classes": 1, "count": 30, "iou": 0.7, "limit": 4},
    {"batch": 2, "classes": 3, "count": 20, "iou": 0.4, "score_threshold": 0.3, "limit": 5},
    {"batch": 1, "classes": 2, "count": 24, "iou": 0.5, "centered": True},
    {"batch": 1, "classes": 1, "count": 30, "iou": 1.0},
]


@pytest.fixture(scope="module")
def sessions():
    made = []
    for case in CASES:
        before = nms_model(**case)
        after = surgered(before)
        assert "NonMaxSuppression" not in ops(after)
        made.append((case, Model(before), Model(fixed_point_probe(after))))
    return made


@settings(max_examples=150, deadline=None)
@given(st.integers(0, len(CASES) - 1), st.integers(0, 2**32 - 1), st.booleans(), st.booleans())
def test_equals_onnx_runtimes_nms_exactly(sessions, index, seed, grid, ties):
    """Integer boxes put many overlaps exactly on the threshold; few score levels make ties."""
    case, before, after = sessions[index]
    rng = np.random.default_rng(seed)
    batch, classes, count = case["batch"], case["classes"], case["count"]
    boxes = np.stack([random_boxes(rng, count, grid=grid) for _ in range(batch)])
    feed = {"boxes": boxes, "scores": random_scores(rng, (batch, classes, count), ties=ties)}
    found = after(feed)
    assert all(value == 0 for name, value in found.items() if name.endswith("unsettled"))
    np.testing.assert_array_equal(before(feed)["mask"], found["mask"])


def chain(count):
    """Boxes side by side, each overlapping only its neighbours, with falling scores: NMS keeps every other one."""
    x = np.arange(count, dtype=np.float32) * 4
    boxes = np.stack([x, np.zeros(count), x + 10, np.full(count, 10)], 1)[None].astype(np.float32)
    return {"boxes": boxes, "scores": np.linspace(1, 0.1, count, dtype=np.float32).reshape(1, 1, -1)}


def test_a_chain_longer_than_the_rounds_is_noticed_and_more_rounds_settle_it():
    before, feed = nms_model(1, 1, 100, 0.3), chain(100)
    for rounds, settled in ((32, False), (128, True)):
        after = operate(before, Runtime.TENSORRT, options=Options(nms_rounds=rounds))[0]
        found = Model(fixed_point_probe(after))(feed)
        assert (found["nms/nms/unsettled"] == 0) is np.bool_(settled)
        assert np.array_equal(found["mask"], Model(before)(feed)["mask"]) is settled


def test_rounds_are_doubled_until_the_models_own_boxes_are_right():
    before, feed = nms_model(1, 1, 100, 0.3), chain(100)
    nodes = [
        helper.make_node("Mul", ["boxes", "nought"], ["no_boxes"]),
        helper.make_node("Add", ["no_boxes", "chain"], ["chained"]),
        helper.make_node("Mul", ["scores", "nought"], ["no_scores"]),
        helper.make_node("Add", ["no_scores", "falling"], ["in_order"]),
    ]
    constants = {"chain": feed["boxes"], "falling": feed["scores"], "nought": np.array(0, np.float32)}
    before.graph.initializer.extend(make_model([], {}, {}, constants).graph.initializer)
    before.graph.node[0].input[:2] = ["chained", "in_order"]
    for node in reversed(nodes):
        before.graph.node.insert(0, node)
    after, report = operate(before, Runtime.TENSORRT)
    (record,) = [record for record in report.records if record.row == 12]
    assert record.outcome is Outcome.DONE
    assert "in 100 rounds" in record.what  # 32 and 64 were too few, 128 are more than there are boxes
    assert worst(before, after, [feed]) == 0


@pytest.fixture(scope="module")
def selected():
    rng = np.random.default_rng(0)
    arguments = torch.from_numpy(random_boxes(rng)), torch.from_numpy(random_scores(rng))
    names = {"input_names": ["boxes", "scores"], "output_names": ["kept_boxes", "kept_scores"]}
    before = export(Selected(), *arguments, dynamic_axes={"kept_boxes": {0: "n"}, "kept_scores": {0: "n"}}, **names)
    return before, surgered(before)


def test_rows_that_leave_the_graph_come_first_and_padding_has_a_score_of_minus_one(selected):
    before, after = Model(selected[0]), Model(selected[1])
    rng = np.random.default_rng(3)
    counts = set()
    for ties in (False, True):
        for crowd in (1, 40):
            feed = {"boxes": random_boxes(rng, grid=True), "scores": random_scores(rng, ties=ties)}
            feed["boxes"][:, 2:] += crowd
            old, new = before(feed), after(feed)
            rows = len(old["kept_scores"])
            counts.add(rows)
            assert new["kept_boxes_rows"].tolist() == [rows]
            for name in ("kept_boxes", "kept_scores"):
                assert len(new[name]) == 20
                np.testing.assert_array_equal(new[name][:rows], old[name])
            np.testing.assert_array_equal(new["kept_scores"][rows:], -1)
    assert min(counts) < 20 == max(counts)


@needs_rtx
def test_padded_rows_build_where_the_original_does_not(selected):
    before, after = selected
    assert rtx(before).stage == "build"
    assert "has no runners that implement it" in rtx(before).words
    assert rtx(after)[::2] == ("ok", 0)


def test_the_report_says_that_outputs_were_padded(selected):
    _, report = operate(selected[0], Runtime.TENSORRT)
    (record,) = [record for record in report.records if record.row == 12]
    assert "48 boxes in 32 rounds" in record.what
    assert "kept_boxes, kept_scores now have 20 rows: the real ones first" in record.what
    assert "_rows says how many are real" in record.what


def test_selected_indices_of_several_classes_come_in_the_same_order():
    nodes = [helper.make_node("NonMaxSuppression", ["boxes", "scores", "limit", "iou"], ["selected"], name="nms")]
    given = {"boxes": (FLOAT, [2, 15, 4]), "scores": (FLOAT, [2, 3, 15])}
    constants = {"limit": np.array([4]), "iou": np.array([0.4], np.float32)}
    before = make_model(nodes, given, {"selected": (INT64, [None, 3])}, constants)
    after = surgered(before)
    rng = np.random.default_rng(0)
    for _ in range(10):
        boxes = np.stack([random_boxes(rng, 15, grid=True) for _ in range(2)])
        feed = {"boxes": boxes, "scores": random_scores(rng, (2, 3, 15), ties=True)}
        old, new = Model(before)(feed), Model(after)(feed)
        rows = len(old["selected"])
        assert new["selected_rows"].tolist() == [rows]
        assert new["selected"].shape == (24, 3)
        np.testing.assert_array_equal(new["selected"][:rows], old["selected"])


def mixing(reduction):
    nodes = [
        helper.make_node("NonMaxSuppression", ["boxes", "scores", "limit", "iou"], ["selected"], name="nms"),
        helper.make_node(*reduction, name="after"),
    ]
    given = {"boxes": (FLOAT, [1, 15, 4]), "scores": (FLOAT, [1, 1, 15])}
    constants = {"limit": np.array([15]), "iou": np.array([0.4], np.float32), "k": np.array([1]), "axis": np.array(0)}
    return make_model(nodes, given, {"y": (INT64, None)}, constants)


def test_numbers_of_rows_are_counted_and_sums_run_over_real_rows():
    for reduction in (("Size", ["selected"], ["y"]), ("CumSum", ["selected", "axis"], ["y"])):
        model = mixing(reduction)
        after = surgered(model)
        rng = np.random.default_rng(0)
        for _ in range(5):
            feed = {"boxes": random_boxes(rng, 15)[None], "scores": random_scores(rng, (1, 1, 15))}
            old, new = Model(model)(feed)["y"], Model(after)(feed)["y"]
            np.testing.assert_array_equal(new[: len(old)] if old.ndim else new, old)


def test_a_node_without_a_rule_is_named_and_everything_is_left():
    model = mixing(("ReverseSequence", ["selected", "lengths"], ["y"]))
    model.graph.initializer.extend(make_model([], {}, {}, {"lengths": np.array([1, 1, 1])}).graph.initializer)
    after, report = operate(model, Runtime.TENSORRT, only=[12])
    assert after is model
    (record,) = report.records
    assert record.outcome is Outcome.REFUSED
    assert record.node == "after"
    assert "ReverseSequence 'after' has no rule" in record.why
    assert "from the NonMaxSuppression 'nms'" in record.why
    assert "keep-mask" in record.what


def test_a_largest_over_selected_rows_skips_the_others():
    model = mixing(("ReduceMax", ["selected"], ["y"]))
    after = surgered(model)
    rng = np.random.default_rng(0)
    feeds = [{"boxes": random_boxes(rng, 15)[None], "scores": random_scores(rng, (1, 1, 15))} for _ in range(5)]
    assert worst(model, after, feeds) == 0


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (
            lambda model: model.graph.initializer[0].CopyFrom(
                make_model([], {}, {}, {"limit": np.array([0])}).graph.initializer[0]
            ),
            "selects nothing",
        ),
        (lambda model: model.graph.input[0].type.tensor_type.shape.dim[1].ClearField("dim_value"), "not fixed"),
        (
            lambda model: (
                model.graph.initializer.pop(1)
                and model.graph.input.append(helper.make_tensor_value_info("iou", FLOAT, [1]))
            ),
            "iou_threshold is computed at run time",
        ),
    ],
    ids=["no boxes wanted", "open number of boxes", "threshold is an input"],
)
def test_what_cannot_be_static_is_left_with_the_reason(change, words):
    model = nms_model(1, 1, 8, 0.5)
    change(model)
    if "not fixed" in words:
        model.graph.input[1].type.tensor_type.shape.dim[2].ClearField("dim_value")
    after, report = operate(model, Runtime.TENSORRT, only=[12])
    assert after is model
    assert words in report.records[0].why
    assert ("--input-shape" in report.records[0].what) == ("not fixed" in words)


def test_too_many_candidates_for_the_memory_are_refused():
    _, report = operate(nms_model(1, 80, 3000, 0.5), Runtime.TENSORRT, only=[12], seeds=())
    assert "keep fewer candidates" in report.records[0].why


@pytest.fixture(scope="module")
def crowded():
    """More candidates than one matrix takes; the best 30 that are kept are the output."""
    nodes = [
        helper.make_node("NonMaxSuppression", ["boxes", "scores", "limit", "iou"], ["selected"], name="nms"),
        helper.make_node("Slice", ["selected", "zero", "thirty", "zero"], ["first"]),
        helper.make_node("Gather", ["first", "two"], ["place"], axis=1),
        helper.make_node("Gather", ["boxes", "place"], ["found"], axis=1),
    ]
    constants = {"limit": np.array([12000]), "iou": np.array([0.3], np.float32), "zero": np.array([0])}
    constants |= {"thirty": np.array([30]), "two": np.array(2)}
    given = {"boxes": (FLOAT, [1, 12000, 4]), "scores": (FLOAT, [1, 1, 12000])}
    before = make_model(nodes, given, {"found": (FLOAT, None)}, constants)
    return before, *operate(before, Runtime.TENSORRT_RTX, seeds=(0,))


def test_the_best_of_too_many_candidates_are_suppressed(crowded):
    before, after, report = crowded
    assert "NonMaxSuppression" not in ops(after)
    assert "3840 boxes, the best of 12000" in report.records[-1].what
    old, new = Model(before), Model(fixed_point_probe(after))
    rng = np.random.default_rng(0)
    corner = rng.random((12000, 2)) * 1000
    boxes = np.concatenate([corner, corner + rng.random((12000, 2)) * 60], 1).astype(np.float32)[None]
    feed = {"boxes": boxes, "scores": rng.random((1, 1, 12000)).astype(np.float32)}
    found = new(feed)
    np.testing.assert_array_equal(found["found"], old(feed)["found"])
    assert found["found_rows"].tolist() == [30]
    assert found["nms/nms/unsettled"] == 0
    assert found["nms/nms/left_out"] == 12000 - 3840


def test_cpu_runtimes_keep_the_native_operator(idiom):
    for runtime in (Runtime.ONNXRUNTIME, Runtime.OPENVINO):
        assert "NonMaxSuppression" in ops(operate(idiom[0], runtime)[0])


def test_graphs_without_the_pattern_are_untouched():
    assert_untouched(make_model([helper.make_node("Not", ["x"], ["y"])], {"x": (BOOL, [3])}, {"y": (BOOL, [3])}), 12)
