"""A split of small images with two boxes each, and tiny detectors that find them, in several tempers."""

import json
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from PIL import Image

SIDE = 64
BOXES = [[4, 4, 24, 24], [30, 30, 60, 60]]
IMAGES = 5


def write_split(folder: Path, category: int = 1) -> None:
    """`annotations.json` and `images/`, as in a bundle's `data/test`."""
    (folder / "images").mkdir(parents=True)
    noise = np.random.default_rng(1)
    images, annotations = [], []
    for number in range(IMAGES):
        pixels = noise.integers(0, 256, (SIDE, SIDE, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / "images" / f"{number}.png")
        images.append({"id": number, "file_name": f"{number}.png", "width": SIDE, "height": SIDE})
        for x1, y1, x2, y2 in BOXES:
            box = [x1, y1, x2 - x1, y2 - y1]
            record = {"id": len(annotations), "image_id": number, "category_id": category, "bbox": box}
            annotations.append(record)
    document = {"images": images, "annotations": annotations, "categories": [{"id": category, "name": "thing"}]}
    (folder / "annotations.json").write_text(json.dumps(document))


def write_detector(path: Path, work: int = 0, scores=(0.9, 0.8), kind: str = "", side: int = SIDE) -> Path:
    """An ONNX detector that finds `BOXES` with these scores (-1: padding) in every image.

    Args:
        path: where to write it.
        work: how many 192 x 192 matrix products it computes for nothing.
        scores: one a box.
        kind: ``nan``: scores are NaN; ``hang``: loops for years; ``unknown``: has an operator that does not exist.
        side: of its input, in pixels.
    """
    graph = [
        helper.make_node("ReduceMean", ["image"], ["mean"], keepdims=0),
        helper.make_node("Mul", ["mean", "zero"], ["nothing"]),
        helper.make_node("Add", ["constant_boxes", "nothing"], ["boxes"]),
        helper.make_node("Identity", ["constant_labels"], ["labels"]),
    ]
    weights = {
        "zero": np.float32(0),
        "constant_boxes": np.array(BOXES, np.float32),
        "constant_scores": np.array(scores, np.float32),
        "constant_labels": np.array([1, 1], np.int64),
    }
    last = "nothing"
    if work:
        weights["eye"] = np.eye(192, dtype=np.float32)
        graph.append(helper.make_node("Add", ["eye", "mean"], ["product0"]))
        graph += [helper.make_node("MatMul", [f"product{i}", "eye"], [f"product{i + 1}"]) for i in range(work)]
        graph.append(helper.make_node("ReduceMean", [f"product{work}"], ["product"], keepdims=0))
        graph.append(helper.make_node("Mul", ["product", "zero"], ["worked"]))
        last = "worked"
    if kind == "nan":
        weights["negative"] = np.float32(-2)
        graph.append(helper.make_node("Add", ["mean", "negative"], ["below_zero"]))
        graph.append(helper.make_node("Sqrt", ["below_zero"], ["not_a_number"]))
        last = "not_a_number"
    if kind == "hang":
        weights["trips"], weights["true"] = np.int64(2**60), np.array(True)
        graph.append(helper.make_node("Loop", ["trips", "true", last], ["looped"], body=_endless()))
        last = "looped"
    if kind == "unknown":
        graph.append(helper.make_node("NoSuchOperator", [last], ["unknown"]))
        last = "unknown"
    graph.append(helper.make_node("Add", ["constant_scores", last], ["scores"]))
    model = helper.make_model(
        helper.make_graph(
            graph,
            "detector",
            [helper.make_tensor_value_info("image", TensorProto.FLOAT, [1, 3, side, side])],
            [
                helper.make_tensor_value_info("boxes", TensorProto.FLOAT, [2, 4]),
                helper.make_tensor_value_info("scores", TensorProto.FLOAT, [2]),
                helper.make_tensor_value_info("labels", TensorProto.INT64, [2]),
            ],
            [numpy_helper.from_array(np.asarray(value), name) for name, value in weights.items()],
        ),
        opset_imports=[helper.make_opsetid("", 17)],
        ir_version=9,
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    onnx.save(model, path)
    return path


def _endless():
    return helper.make_graph(
        [
            helper.make_node("Identity", ["condition"], ["still"]),
            helper.make_node("Cos", ["value"], ["next"]),
        ],
        "body",
        [
            helper.make_tensor_value_info("count", TensorProto.INT64, []),
            helper.make_tensor_value_info("condition", TensorProto.BOOL, []),
            helper.make_tensor_value_info("value", TensorProto.FLOAT, []),
        ],
        [
            helper.make_tensor_value_info("still", TensorProto.BOOL, []),
            helper.make_tensor_value_info("next", TensorProto.FLOAT, []),
        ],
    )


@pytest.fixture(scope="session")
def detector():
    """`write_detector`."""
    return write_detector


@pytest.fixture(scope="session")
def split_folder(tmp_path_factory) -> Path:
    """A bundle's `data/test`."""
    folder = tmp_path_factory.mktemp("bundle") / "data" / "test"
    write_split(folder)
    return folder
