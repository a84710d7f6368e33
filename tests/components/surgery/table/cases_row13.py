"""Row 13: EfficientNMS_TRT, compared with what NVIDIA's documentation of the plugin says."""

import numpy as np
import onnx
from onnx import helper
from surgery_cases import Case
from surgery_graphs import FLOAT, make_model

ATTRIBUTES = {
    "score_threshold": 0.3,
    "iou_threshold": 0.45,
    "max_output_boxes": 20,
    "background_class": -1,
    "score_activation": 0,
    "class_agnostic": 0,
    "box_coding": 0,
}


def model(boxes=(2, 40, 4), classes=3, *, anchors=None, opset=17, **given):
    attributes = ATTRIBUTES | given
    inputs = {"boxes": (FLOAT, list(boxes)), "scores": (FLOAT, [*boxes[:2], classes])}
    constants = {} if anchors is None else {"anchors": anchors}
    names = ["num_detections", "detection_boxes", "detection_scores", "detection_classes"]
    most = attributes["max_output_boxes"]
    kinds = [onnx.TensorProto.INT32, FLOAT, FLOAT, onnx.TensorProto.INT32]
    shapes = [[boxes[0], 1], [boxes[0], most, 4], [boxes[0], most], [boxes[0], most]]
    node = helper.make_node(
        "EfficientNMS_TRT", [*inputs, *constants], names, name="nms", plugin_version="1", **attributes
    )
    return make_model([node], inputs, dict(zip(names, zip(kinds, shapes, strict=True), strict=True)), constants, opset)


def corners_of(box, anchor, coding):
    """One box as corners, decoded from its anchor where there is one."""
    if coding == 0:
        return box if anchor is None else in_order(box) + in_order(anchor)
    if anchor is not None:
        box = np.r_[box[:2] * anchor[2:] + anchor[:2], anchor[2:] * np.exp(box[2:])]
    return np.r_[box[:2] - box[2:] * np.float32(0.5), box[:2] + box[2:] * np.float32(0.5)]


def in_order(box):
    return np.r_[np.minimum(box[:2], box[2:]), np.maximum(box[:2], box[2:])]


def iou(a, b):
    a, b = in_order(a), in_order(b)
    sides = np.minimum(a[2:], b[2:]) - np.maximum(a[:2], b[:2])
    if (sides <= 0).any():
        return np.float32(0)
    common = sides[0] * sides[1]
    return common / ((a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - common)


def efficient_nms(boxes, scores, anchors, attributes):
    """The plugin's outputs, box by box as the documentation tells it."""
    batch, _, classes = scores.shape
    most = attributes["max_output_boxes"]
    count = np.zeros((batch, 1), np.int32)
    found, values, labels = (np.zeros((batch, most, *size), np.float32) for size in ((4,), (), ()))
    threshold = np.float32(attributes["score_threshold"])
    if attributes["score_activation"]:
        threshold = np.log(threshold / (1 - threshold)).astype(np.float32) if threshold > 0 else -(2.0**15)
    for image in range(batch):
        flat = scores[image].reshape(-1)
        background = np.arange(flat.size) % classes == attributes["background_class"]
        usable = np.flatnonzero((flat >= threshold) & ~background)
        best = usable[np.argsort(-flat[usable], kind="stable")][:4096]
        kept = []
        for place in best:
            box_number, category = divmod(int(place), classes)
            box = boxes[image, box_number]
            if box.ndim == 2:
                box = box[category if len(box) == classes else 0]
            anchor = None if anchors is None else anchors[image % len(anchors), box_number]
            corners = corners_of(box, anchor, attributes["box_coding"]).astype(np.float32)
            rivals = [c for c, other in kept if attributes["class_agnostic"] or other == category]
            if any(iou(corners, rival) >= np.float32(attributes["iou_threshold"]) for rival in rivals):
                continue
            row = len(kept)
            kept.append((corners, category))
            score = flat[place]
            found[image, row], labels[image, row] = corners, category
            values[image, row] = 1 / (1 + np.exp(-score)) if attributes["score_activation"] else score
            if len(kept) == most:
                break
        count[image] = len(kept)
    return {
        "num_detections": count,
        "detection_boxes": found,
        "detection_scores": values,
        "detection_classes": labels.astype(np.int32),
    }


def feeds(rng, boxes=(2, 40, 4), classes=3, *, centred=False, logits=False, anchors=False):
    shape = boxes[:-1]
    if anchors:
        made = rng.uniform(-0.3, 0.3, boxes)
    else:
        centre, size = rng.uniform(0, 50, (*shape, 2)), rng.uniform(5, 40, (*shape, 2))
        made = np.concatenate([centre, size] if centred else [centre - size / 2, centre + size / 2], -1)
    scores = rng.standard_normal((*boxes[:2], classes)) if logits else rng.random((*boxes[:2], classes))
    return {"boxes": made.astype(np.float32), "scores": scores.astype(np.float32)}


def anchors_of(count, *, centred):
    rng = np.random.default_rng(0)
    centre, size = rng.uniform(0, 50, (1, count, 2)), rng.uniform(5, 40, (1, count, 2))
    return np.concatenate([centre, size] if centred else [centre - size / 2, centre + size / 2], -1).astype(np.float32)


def case(name, boxes=(2, 40, 4), classes=3, *, anchors=None, opset=17, **given):
    attributes = ATTRIBUTES | given
    centred = attributes["box_coding"] == 1
    fixed = (2 if boxes[0] == "batch" else boxes[0], *boxes[1:])
    return Case(
        name,
        lambda: model(boxes, classes, anchors=anchors, opset=opset, **given),
        before="reject",
        feeds=lambda rng: feeds(
            rng,
            fixed,
            classes,
            centred=centred,
            logits=bool(attributes["score_activation"]),
            anchors=anchors is not None,
        ),
        reference=lambda feed: efficient_nms(feed["boxes"], feed["scores"], anchors, attributes),
    )


CASES = [
    case("class by class, corners, open batch", ("batch", 40, 4)),
    case("logits, centre and size, class agnostic", score_activation=1, box_coding=1, class_agnostic=1),
    case("boxes of their own for each class, a background", (2, 30, 4, 4), 4, background_class=0, max_output_boxes=8),
    case("decoded from anchors", anchors=anchors_of(40, centred=True), box_coding=1, score_threshold=0.0),
    case("corners added to anchors, few boxes, opset 13", (2, 6, 4), anchors=anchors_of(6, centred=False), opset=13),
    case("5000 scores, of which 4096 count", (1, 1000, 4), 5, score_threshold=0.05),
]
