"""A small detector, made by hand, whose head collapses in INT8, and images for it.

It finds bright cells of 8 x 8 pixels. Between two of its layers one channel is 5000 times as large as the others: what
the detector looks at disappears in the rounding of the tensor.
"""

import json
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper
from PIL import Image

SIDE, CELL, GRID = 64, 8, 8
OUTLIER = 5000.0


def hard_detector(outlier: float = OUTLIER) -> onnx.ModelProto:
    """Outputs boxes [64, 4], scores [64] and labels [64]; `outlier` is how much larger the one channel is."""
    pixels = CELL * CELL
    soft = np.eye(3, dtype=np.float32).reshape(3, 3, 1, 1)
    look = np.zeros((8, 3, CELL, CELL), np.float32)
    look[0] = 1 / (3 * pixels)
    look[1] = outlier / (3 * pixels)
    look[2:] = 0.5 / (3 * pixels)
    mix = np.zeros((4, 8, 1, 1), np.float32)
    mix[:, 0, 0, 0] = 1.0
    mix[:, 2, 0, 0] = 0.5
    head = np.full((1, 4, 1, 1), 6.0, np.float32)
    weights = {
        "w0": soft,
        "w1": look,
        "w2": mix,
        "w3": head,
        "b0": np.zeros(3, np.float32),
        "b1": np.zeros(8, np.float32),
        "b2": np.full(4, -0.3, np.float32),
        "b3": np.full(1, -12.0, np.float32),
        "flat": np.array([-1], np.int64),
        "boxes": cells().astype(np.float32),
        "labels": np.ones(GRID * GRID, np.int64),
    }
    node = helper.make_node
    nodes = [
        node("Conv", ["images", "w0", "b0"], ["c0"], name="stem"),
        node("Conv", ["c0", "w1", "b1"], ["c1"], name="look", strides=[CELL, CELL]),
        node("Relu", ["c1"], ["r1"], name="look_relu"),
        node("Conv", ["r1", "w2", "b2"], ["c2"], name="mix"),
        node("Relu", ["c2"], ["r2"], name="mix_relu"),
        node("Conv", ["r2", "w3", "b3"], ["c3"], name="head"),
        node("Reshape", ["c3", "flat"], ["logits"], name="flatten"),
        node("Sigmoid", ["logits"], ["scores"], name="score"),
        node("Identity", ["boxes"], ["boxes_out"], name="box"),
        node("Identity", ["labels"], ["labels_out"], name="label"),
    ]
    value = helper.make_tensor_value_info
    graph = helper.make_graph(
        nodes,
        "hard",
        [value("images", TensorProto.FLOAT, [1, 3, SIDE, SIDE])],
        [
            value("boxes_out", TensorProto.FLOAT, [GRID * GRID, 4]),
            value("scores", TensorProto.FLOAT, [GRID * GRID]),
            value("labels_out", TensorProto.INT64, [GRID * GRID]),
        ],
        initializer=[numpy_helper.from_array(array, name) for name, array in weights.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def cells() -> np.ndarray:
    """Box of every cell, [64, 4], in the order of the head's outputs."""
    corners = np.stack(np.meshgrid(np.arange(GRID), np.arange(GRID), indexing="ij"), axis=-1).reshape(-1, 2)[:, ::-1]
    return np.concatenate([corners, corners + 1], axis=1) * CELL


def write_cells(folder: Path, images: int, seed: int = 3) -> None:
    """A COCO split: dark noise with three bright cells an image."""
    rng = np.random.default_rng(seed)
    (folder / "images").mkdir(parents=True)
    document = {"images": [], "annotations": [], "categories": [{"id": 1, "name": "cell"}]}
    for number in range(images):
        picture = rng.integers(20, 60, (SIDE, SIDE, 3)).astype(np.uint8)
        for cell in rng.choice(GRID * GRID, 3, replace=False):
            x1, y1, x2, y2 = (int(side) for side in cells()[cell])
            picture[y1:y2, x1:x2] = rng.integers(200, 250, (CELL, CELL, 3))
            document["annotations"].append(
                {
                    "id": len(document["annotations"]) + 1,
                    "image_id": number,
                    "category_id": 1,
                    "bbox": [x1, y1, CELL, CELL],
                    "area": CELL * CELL,
                    "iscrowd": 0,
                }
            )
        name = f"{number:03}.png"
        Image.fromarray(picture).save(folder / "images" / name)
        document["images"].append({"id": number, "file_name": name, "width": SIDE, "height": SIDE})
    (folder / "annotations.json").write_text(json.dumps(document))
