"""Row 5: Resize with tf_crop_and_resize, and other coordinates that no parser takes."""

import numpy as np
from onnx import helper
from surgery_cases import Case
from surgery_graphs import FLOAT, make_model

OPEN = ["a", "b", "c", "d"]


def crop(roi, mode="linear", sizes=(1, 3, 9, 14), shape=(1, 3, 21, 31), opset=17, **attributes):
    """A Resize of the region `roi` (starts, ends); None: it is an input."""
    node = helper.make_node(
        "Resize",
        ["x", "roi", "", "sizes"],
        ["y"],
        name="crop",
        mode=mode,
        coordinate_transformation_mode="tf_crop_and_resize",
        **attributes,
    )
    inputs, constants = {"x": (FLOAT, list(shape))}, {"sizes": np.array(sizes)}
    if roi is None:
        inputs["roi"] = (FLOAT, [8])
    else:
        constants["roi"] = np.array(roi, np.float32)
    return make_model([node], inputs, {"y": (FLOAT, OPEN)}, constants, opset)


def symmetric():
    given = "half_pixel_symmetric"
    node = helper.make_node("Resize", ["x", "", "scales"], ["y"], coordinate_transformation_mode=given, mode="linear")
    constants = {"scales": np.array([1, 1, 1.7, 0.55], np.float32)}
    return make_model([node], {"x": (FLOAT, ["n", 2, 13, 19])}, {"y": (FLOAT, OPEN)}, constants, opset=19)


def tensorflow(mode):
    given = "tf_half_pixel_for_nn"
    node = helper.make_node(
        "Resize", ["x", "roi", "scales", "sizes"], ["y"], coordinate_transformation_mode=given, mode=mode
    )
    constants = {"sizes": np.array([1, 2, 20, 11]), "roi": np.zeros(8, np.float32), "scales": np.zeros(0, np.float32)}
    return make_model([node], {"x": (FLOAT, [1, 2, 13, 19])}, {"y": (FLOAT, OPEN)}, constants, opset=12)


def regions(rng):
    start, end = rng.uniform(-0.2, 0.4, 2), rng.uniform(0.5, 1.2, 2)
    roi = np.concatenate([[0, 0], start, [1, 1], end]).astype(np.float32)
    return {"x": rng.standard_normal((1, 3, 21, 31)).astype(np.float32), "roi": roi}


CASES = [
    Case("from pixel to pixel: a Slice", lambda: crop([0, 0, 0.2, 0.1, 1, 1, 0.8, 0.9]), before="reject"),
    Case("between pixels", lambda: crop([0, 0, 0.22, 0.13, 1, 1, 0.83, 0.97]), before="reject"),
    Case(
        "out of the image",
        lambda: crop([0, 0, -0.3, 0.1, 1, 1, 0.8, 1.2], extrapolation_value=7.5),
        before="reject",
    ),
    Case("nearest", lambda: crop([0, 0, 0.2, -0.1, 1, 1, 0.8, 0.93], mode="nearest"), before="reject"),
    Case("cubic", lambda: crop([0, 0, 0.2, 0.1, 1, 1, 0.8, 0.93], mode="cubic"), before="reject"),
    Case(
        "region at run time",
        lambda: crop(None, extrapolation_value=-2.0),
        before="reject",
        feeds=regions,
    ),
    Case("half_pixel_symmetric", symmetric, before="reject"),
    Case("tf_half_pixel_for_nn", lambda: tensorflow("nearest"), before="reject"),
]
