"""Every architecture as one engine without a plugin: export, surgery, precision and builder together."""

import importlib.util

import numpy as np
import onnx
import pytest
import torch

from components.core.contracts.job import Runtime
from components.core.tasks.detection import per_image
from components.engine.build import build_engine
from components.export.canonical import canonical
from components.export.onnx_export import StockDetector, export_onnx
from components.export.parity import compare, run_onnx
from components.fp16.onnx_half import convert_to_half
from components.int8.onnx_qdq import quantize_onnx
from components.surgery.operate import operate
from fixtures.detectors import photograph, tiny_faster_rcnn, tiny_fcos, tiny_retinanet, tiny_ssd

pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("tensorrt_rtx") is None, reason="tensorrt_rtx is not installed (extra tensorrt-rtx)"
)
RTX = Runtime.TENSORRT_RTX
HEIGHT, WIDTH = 96, 128


@pytest.mark.parametrize("make", [tiny_faster_rcnn, tiny_retinanet, tiny_fcos, tiny_ssd])
@pytest.mark.parametrize(("count", "precision"), [(1, "INT8"), (3, "HALF"), (2, "INT8")])
def test_one_engine_holds_the_whole_detector(make, count, precision, tmp_path):
    model = make()
    pictures = np.stack([photograph(seed, HEIGHT, WIDTH).transpose(2, 0, 1) for seed in range(2 * count)])
    batches = np.split(pictures.astype(np.float32) / 255, 2)
    export_onnx(canonical(model, HEIGHT, WIDTH), torch.from_numpy(batches[0]), tmp_path / "canonical.onnx")
    operated, _ = operate(onnx.load(tmp_path / "canonical.onnx"), RTX)
    onnx.save(operated, tmp_path / "operated.onnx")
    with torch.inference_mode():
        groups = [
            per_image(count, *(part.numpy() for part in StockDetector(model)(torch.from_numpy(b)))) for b in batches
        ]
    expected = [one for group in groups for one in group]
    parity = compare(expected, run_onnx(tmp_path / "operated.onnx", batches))
    assert parity.matched == parity.detections > 30 * count

    final = tmp_path / "final.onnx"
    if precision == "HALF":
        convert_to_half(tmp_path / "operated.onnx", final)
    else:
        quantize_onnx(tmp_path / "operated.onnx", final, RTX, batches, vnni=False)
    found = run_onnx(final, batches)
    assert [len(one.scores) > 0 for one in found] == [True] * 2 * count
    card = build_engine(RTX, final, tmp_path / "final.engine", [], batches[0].shape, 120)
    assert card.plugins == 0
    assert set(card.precisions) == {precision}, "every layer with weights computes in it"
    most = len(expected[0].scores)
    front = [] if count == 1 else [count]
    assert {one.name: one.shape for one in card.outputs} == {
        "boxes": [*front, most, 4],
        "scores": [*front, most],
        "labels": [*front, most],
    }
