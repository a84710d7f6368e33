import json
import shutil

import numpy as np
import onnx
import pytest

from components.core.contracts.job import Runtime
from components.core.contracts.variant import Manifest, Status, Variant
from components.core.errors import UserError
from components.core.tasks.detection import fit, read_split
from components.export.parity import compare, run_onnx
from components.int8 import run as int8_run
from components.int8.calibration import read_calibration_set
from components.int8.onnx_backend import OnnxBackend
from components.int8.run import run_int8
from fixtures.jobs import make_surgered


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    return make_surgered(tmp_path_factory.mktemp("int8"))


def quantized(job, bundle, surgered, out, runtime):
    backend = OnnxBackend(surgered / "model.onnx", runtime, read_calibration_set(job, bundle), vnni=True)
    return backend.calibrate(60) | backend.write(out)


def batches(bundle):
    split = read_split(bundle / "data/test/annotations.json", bundle / "data/test/images")
    return [fit(image.load(), 96, 96)[0] for image in split.images]


def test_each_runtime_gets_a_smaller_model_of_its_own(exported, tmp_path):
    job, bundle, surgered = exported
    manifest = run_int8(job, surgered, bundle, tmp_path)
    variants = {variant.id: variant for variant in manifest.variants}
    assert {"int8-openvino", "int8-onnxruntime", "int8-tensorrt-rtx"} <= set(variants)
    assert {variant.status for variant in manifest.variants} == {Status.OK}
    assert manifest.variants[0].techniques == ["surgery"], "the job's first runtime also shows the FP32 re-expression"
    for variant in manifest.variants[1:]:
        assert variant.techniques[:2] == ["surgery", "int8"]
        assert (tmp_path / variant.file).is_file()
    card = json.loads((tmp_path / "int8_card.json").read_text())
    assert card["calibration"]["images"] == 4


def test_calibration_images_come_in_the_targets_batch(exported):
    job, bundle, _ = exported
    target = job.target.model_copy(update={"input_shape": (3, 3, 96, 96)})
    calibration = read_calibration_set(job.model_copy(update={"target": target}), bundle)
    assert [batch["image"].shape for batch in calibration.batches] == [(3, 3, 96, 96)] * 2
    assert calibration.card()["images"] == 4


def test_tensorrt_pairs_are_symmetric_and_leave_biases_and_tail_alone(exported, tmp_path):
    job, bundle, surgered = exported
    out = tmp_path / "q.onnx"
    facts = quantized(job, bundle, surgered, out, Runtime.TENSORRT_RTX)
    graph = onnx.load(out).graph
    constants = {initializer.name: onnx.numpy_helper.to_array(initializer) for initializer in graph.initializer}
    pairs = [node for node in graph.node if node.op_type in ("QuantizeLinear", "DequantizeLinear")]
    assert len(pairs) > facts["quantized_layers"] == facts["layers"]
    for node in pairs:
        assert not np.any(constants[node.input[2]]), f"{node.name} has a zero point other than 0"
        assert constants[node.input[2]].dtype == np.int8
    producers = {name: node for node in graph.node for name in node.output}
    for node in graph.node:
        if node.op_type == "Conv":
            assert producers[node.input[0]].op_type == "DequantizeLinear"
            bias = producers.get(node.input[2])
            assert bias is None or bias.op_type == "Identity", "the bias stays in FP32"
        if node.op_type in ("NonMaxSuppression", "RoiAlign"):
            feeding = [producers[name].op_type for name in node.input if name in producers]
            assert "DequantizeLinear" not in feeding[1:]


def test_onnxruntime_pairs_are_not_tensorrts(exported, tmp_path):
    job, bundle, surgered = exported
    out = tmp_path / "q.onnx"
    quantized(job, bundle, surgered, out, Runtime.ONNXRUNTIME)
    types = {initializer.data_type for initializer in onnx.load(out).graph.initializer}
    assert onnx.TensorProto.UINT8 in types
    assert onnx.TensorProto.INT32 in types, "biases are INT32 where the CPU kernels want them"


def test_int8_finds_roughly_what_fp32_finds(exported, tmp_path):
    job, bundle, surgered = exported
    out = tmp_path / "q.onnx"
    quantized(job, bundle, surgered, out, Runtime.ONNXRUNTIME)
    exact, rounded = run_onnx(surgered / "model.onnx", batches(bundle)), run_onnx(out, batches(bundle))
    assert compare(exact, rounded).matched < compare(exact, exact).matched, "INT8 rounds"
    for one, other in zip(exact, rounded, strict=True):
        np.testing.assert_allclose(np.sort(other.scores)[-5:], np.sort(one.scores)[-5:], atol=0.15)


def test_a_quantizer_that_fails_is_a_row_and_the_others_go_on(exported, tmp_path, monkeypatch):
    job, bundle, surgered = exported

    def broken(*_):
        raise RuntimeError("Could not find a node\nUnsqueeze_1982 in NNCFGraph!")

    monkeypatch.setitem(int8_run._BACKENDS, Runtime.OPENVINO, broken)
    manifest = run_int8(job, surgered, bundle, tmp_path)
    failed = [variant for variant in manifest.variants if variant.status is Status.FAILED]
    assert [variant.id for variant in failed] == ["int8-openvino"]
    assert failed[0].reason == "quantization failed: RuntimeError: Could not find a node Unsqueeze_1982 in NNCFGraph!"
    assert failed[0].file is None


def test_what_failed_before_is_passed_on_with_its_reason(exported, tmp_path):
    job, bundle, _ = exported
    given = Variant(
        id="surgery-openvino", runtime=Runtime.OPENVINO, techniques=["surgery"], status=Status.FAILED, reason="no luck"
    )
    (tmp_path / "in").mkdir()
    Manifest(task=job.task, input_shape=job.target.input_shape, variants=[given]).write(tmp_path / "in")
    (tmp_path / "out").mkdir()
    manifest = run_int8(job, tmp_path / "in", bundle, tmp_path / "out")
    assert {(variant.status, variant.reason) for variant in manifest.variants} == {(Status.FAILED, "no luck")}
    assert [variant.id for variant in manifest.variants] == ["surgery-openvino", "int8-openvino"]


def test_calibration_is_reproducible_and_recorded(exported):
    job, bundle, _ = exported
    first, second = read_calibration_set(job, bundle), read_calibration_set(job, bundle)
    assert first.card() == second.card()
    fewer = job.model_copy(update={"budget": job.budget.model_copy(update={"calibration_images": 2})})
    other = read_calibration_set(fewer, bundle)
    assert len(other.names) == 2
    assert other.digest != first.digest


def test_nothing_to_calibrate_with_is_refused(exported, tmp_path):
    job, bundle, _ = exported
    empty = tmp_path / "bundle" / "data" / "train"
    shutil.copytree(bundle / "data" / "train", empty)
    (empty / "annotations.json").write_text('{"images": [], "annotations": [], "categories": []}')
    with pytest.raises(UserError, match=r"no images|0 images"):
        read_calibration_set(job, tmp_path / "bundle")
