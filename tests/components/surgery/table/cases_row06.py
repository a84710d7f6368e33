"""Row 6: Resize that keeps the aspect ratio."""

import numpy as np
from onnx import helper
from surgery_cases import Case
from surgery_graphs import FLOAT, make_model

OPEN = ["a", "b", "c", "d"]


def resize(policy, mode, sizes, shape=(1, 3, 20, 31), **attributes):
    node = helper.make_node(
        "Resize", ["x", "", "", "sizes"], ["y"], name="resize", mode=mode, keep_aspect_ratio_policy=policy, **attributes
    )
    inputs = {"x": (FLOAT, list(shape))}
    return make_model([node], inputs, {"y": (FLOAT, OPEN)}, {"sizes": np.array(sizes)}, opset=18)


CASES = [
    Case("exact", lambda: resize("not_larger", "linear", [10, 40], (1, 3, 20, 30), axes=[2, 3]), before="reject"),
    Case("rounded", lambda: resize("not_larger", "linear", [13, 50], axes=[2, 3]), before="reject"),
    Case("rounded up", lambda: resize("not_smaller", "linear", [10, 12], (1, 3, 20, 31), axes=[2, 3]), before="reject"),
    Case(
        "open batch", lambda: resize("not_smaller", "nearest", [50, 33], ("n", 3, 20, 31), axes=[2, 3]), before="reject"
    ),
    Case("cubic", lambda: resize("not_smaller", "cubic", [33, 21], axes=[2, 3]), before="reject"),
    Case(
        "antialiased too",
        lambda: resize("not_larger", "linear", [13, 10], axes=[2, 3], antialias=1),
        before="reject",
        by=3,
    ),
]
