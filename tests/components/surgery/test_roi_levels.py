"""Row 14: RoiAligns of the levels of a pyramid, of which each box keeps one result, become one."""

import numpy as np
import pytest
from onnx import helper
from surgery_graphs import FLOAT, INT64, make_model, needs_rtx, ops, rtx, surgered, worst

from components.core.contracts.job import Runtime
from components.surgery.evaluate import Model
from components.surgery.operate import operate

BOXES, CHANNELS = 9, 3
SIDES = ((24, 30), (12, 15), (6, 8))


def chain(sides=SIDES, *, half_pixel=False, watched=False):
    """``result[level == i] = roi_align(features[i], boxes)[level == i]``, as it is once the boxes are fixed."""
    mode = "half_pixel" if half_pixel else "output_half_pixel"
    nodes, last = [], "base"
    for number in range(len(sides)):
        nodes += [
            helper.make_node(
                "RoiAlign",
                [f"x{number}", "boxes", "image"],
                [f"pooled{number}"],
                name=f"pool{number}",
                output_height=3,
                output_width=2,
                sampling_ratio=2,
                spatial_scale=1 / 2**number,
                coordinate_transformation_mode=mode,
            ),
            helper.make_node("Equal", ["level", f"n{number}"], [f"is{number}"]),
            helper.make_node("Reshape", [f"is{number}", "column"], [f"mask{number}"]),
            helper.make_node("Where", [f"mask{number}", f"pooled{number}", last], [f"choice{number}"]),
        ]
        last = f"choice{number}"
    nodes.append(helper.make_node("Identity", [last], ["y"]))
    constants = {
        "image": np.zeros(BOXES, np.int64),
        "base": np.full((BOXES, CHANNELS, 3, 2), -7, np.float32),
        "column": np.array([BOXES, 1, 1, 1]),
        **{f"n{number}": np.array(number) for number in range(len(sides))},
    }
    given = {f"x{number}": (FLOAT, [1, CHANNELS, *side]) for number, side in enumerate(sides)}
    given |= {"boxes": (FLOAT, [BOXES, 4]), "level": (INT64, [BOXES])}
    outputs = {"y": (FLOAT, [BOXES, CHANNELS, 3, 2])}
    if watched:
        outputs["pooled0"] = outputs["y"]
    return make_model(nodes, given, outputs, constants)


def feeds(sides=SIDES, count=5):
    """Boxes of all sizes, also beyond the image; levels also without a RoiAlign."""
    for seed in range(count):
        rng = np.random.default_rng(seed)
        corner = rng.uniform(-6, 28, (BOXES, 2))
        boxes = np.concatenate([corner, corner + rng.uniform(0, 20, (BOXES, 2))], 1)
        features = {
            f"x{number}": rng.standard_normal((1, CHANNELS, *side)).astype(np.float32)
            for number, side in enumerate(sides)
        }
        yield {**features, "boxes": boxes.astype(np.float32), "level": rng.integers(0, len(sides) + 1, BOXES)}


@pytest.mark.parametrize("half_pixel", [False, True])
@pytest.mark.parametrize("sides", [SIDES, SIDES[:2], ((5, 9), (20, 7), (8, 8))], ids=["pyramid", "two", "any"])
def test_each_box_is_pooled_once_from_its_own_level(sides, half_pixel):
    before = chain(sides, half_pixel=half_pixel)
    after = surgered(before)
    assert [node.op_type for node in after.graph.node].count("GridSample") == 1
    assert "RoiAlign" not in ops(after)
    assert worst(before, after, list(feeds(sides))) < 1e-5


@needs_rtx
def test_tensorrt_builds_it():
    before = chain()
    assert rtx(before).stage == "reject"
    assert rtx(surgered(before))[::2] == ("ok", 0)


def test_the_proof_covers_it():
    _, report = operate(chain(), Runtime.TENSORRT)
    (record,) = [record for record in report.done if record.row == 14]
    assert "3 RoiAligns are one GridSample" in record.what
    assert record.max_error is not None
    assert record.max_error < 1e-5


def test_a_level_that_is_read_elsewhere_stays_apart():
    before = chain(watched=True)
    after = surgered(before)
    assert [node.op_type for node in after.graph.node].count("GridSample") == 2
    assert worst(before, after, list(feeds())) < 1e-5


def test_levels_with_other_boxes_stay_apart():
    before = chain(SIDES[:2])
    before.graph.node[0].input[1] = "others"
    before.graph.input.append(helper.make_tensor_value_info("others", FLOAT, [BOXES, 4]))
    after = surgered(before)
    assert [node.op_type for node in after.graph.node].count("GridSample") == 2
    inputs = [{**feed, "others": feed["boxes"] + 1} for feed in feeds(SIDES[:2])]
    assert worst(before, after, inputs) < 1e-5
    assert Model(after)(inputs[0])["y"].shape == (BOXES, CHANNELS, 3, 2)
