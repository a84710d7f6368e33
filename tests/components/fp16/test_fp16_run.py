import numpy as np
import onnx
import onnx.reference
import onnxruntime
import pytest

from components.core.contracts.job import Runtime
from components.core.contracts.variant import Status
from components.core.half import LARGEST
from components.core.tasks.detection import fit, read_split
from components.engine.build import build_engine
from components.export.parity import run_onnx
from components.fp16 import run as fp16_run
from components.fp16.onnx_half import convert_to_half
from components.fp16.run import run_fp16
from fixtures.jobs import make_surgered


@pytest.fixture(scope="module")
def surgered(tmp_path_factory):
    return make_surgered(tmp_path_factory.mktemp("fp16"))


def weight_bytes(graph):
    return sum(len(initializer.raw_data) for initializer in graph.initializer if len(initializer.dims) > 1)


def test_weights_are_half_the_size_and_the_tail_stays_in_fp32(surgered, tmp_path):
    _, _, folder = surgered
    facts = convert_to_half(folder / "model.onnx", tmp_path / "half.onnx")
    assert facts["fp16_nodes"] > 0 < facts["fp32_nodes"]
    graph = onnx.load(tmp_path / "half.onnx").graph
    weights = {i.name: i.data_type for i in graph.initializer if len(i.dims) == 4}
    assert set(weights.values()) == {onnx.TensorProto.FLOAT16}
    assert [v.type.tensor_type.elem_type for v in graph.input] == [onnx.TensorProto.FLOAT]
    assert weight_bytes(graph) < 0.51 * weight_bytes(onnx.load(folder / "model.onnx").graph)


def test_the_half_model_still_detects(surgered, tmp_path):
    _, bundle, folder = surgered
    convert_to_half(folder / "model.onnx", tmp_path / "half.onnx")
    split = read_split(bundle / "data/test/annotations.json", bundle / "data/test/images")
    batches = [fit(image.load(), 96, 96)[0] for image in split.images]
    for exact, half in zip(
        run_onnx(folder / "model.onnx", batches), run_onnx(tmp_path / "half.onnx", batches), strict=True
    ):
        assert abs(float(exact.scores.max()) - float(half.scores.max())) < 0.02


@pytest.mark.parametrize("native", [True, False])
def test_a_cpu_without_half_arithmetic_is_told_so(surgered, tmp_path, monkeypatch, native):
    job, bundle, folder = surgered
    monkeypatch.setattr(fp16_run, "cpu_flags", lambda: ("avx512_bf16",) if native else ("avx2",))
    variants = {variant.runtime: variant for variant in run_fp16(job, folder, bundle, tmp_path).variants}
    openvino = variants[Runtime.OPENVINO]
    assert openvino.status is Status.OK
    if native:
        assert openvino.id == "bf16-openvino"
        assert openvino.options == {"INFERENCE_PRECISION_HINT": "bf16"}
    else:
        assert openvino.id == "fp16-openvino"
        assert openvino.options == {}
        assert "computes in FP32" in openvino.reason
    assert variants[Runtime.ONNXRUNTIME].status is Status.SKIPPED
    assert variants[Runtime.TENSORRT_RTX].file == "fp16-tensorrt-rtx/model.onnx"


def test_no_value_of_the_tail_passes_through_fp16(surgered, tmp_path):
    """Only the border is cast: a coordinate rounded to 11 bits would move a box."""
    _, _, folder = surgered
    convert_to_half(folder / "model.onnx", tmp_path / "half.onnx")
    before, after = (onnx.load(path).graph for path in (folder / "model.onnx", tmp_path / "half.onnx"))
    casts = [node for node in after.node if node.op_type == "Cast"]
    assert len(casts) - sum(node.op_type == "Cast" for node in before.node) < 40
    producers = {name: node for node in after.node for name in node.output}
    for node in after.node:
        if node.op_type == "NonMaxSuppression":
            source = producers[node.input[0]]
            while source.op_type in ("Unsqueeze", "Cast", "Concat"):
                source = producers[source.input[0]]
            assert source.op_type != "Conv"


def test_a_layer_with_weights_beyond_fp16_stays_in_fp32(tmp_path):
    node, tensor = onnx.helper.make_node, onnx.helper.make_tensor
    value = onnx.helper.make_tensor_value_info
    nodes = [node("MatMul", ["x", "small"], ["y"], name="a"), node("MatMul", ["y", "large"], ["z"], name="b")]
    weights = [tensor("small", 1, [2, 2], [1.0] * 4), tensor("large", 1, [2, 2], [1e5] * 4)]
    graph = onnx.helper.make_graph(nodes, "g", [value("x", 1, [1, 2])], [value("z", 1, [1, 2])], initializer=weights)
    onnx.save(
        onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 17)], ir_version=8),
        tmp_path / "m.onnx",
    )
    facts = convert_to_half(tmp_path / "m.onnx", tmp_path / "half.onnx")
    assert facts["kept_for_range"] == ["b"]
    session = onnxruntime.InferenceSession(str(tmp_path / "half.onnx"), providers=["CPUExecutionProvider"])
    (found,) = session.run(None, {"x": np.ones((1, 2), np.float32)})
    np.testing.assert_allclose(found, [[4e5, 4e5]])


def overflowing():
    """Conv -> 3e5 in FP32 -> scaled back: in FP16 the middle is infinite."""
    node, from_array, value = onnx.helper.make_node, onnx.numpy_helper.from_array, onnx.helper.make_tensor_value_info
    rng = np.random.default_rng(0)
    weights = {f"w{k}": rng.uniform(0.01, 0.03, (32, 3 if k == 0 else 32, 3, 3)).astype(np.float32) for k in range(4)}
    weights["w1"] *= 3e5
    weights["w2"] /= 3e5
    nodes, last = [], "x"
    for k in range(4):
        nodes += [node("Conv", [last, f"w{k}"], [f"c{k}"], name=f"conv{k}", pads=[1] * 4)]
        nodes += [node("Relu", [f"c{k}"], [f"r{k}"], name=f"relu{k}")]
        last = f"r{k}"
    side = 8
    graph = onnx.helper.make_graph(
        nodes,
        "g",
        [value("x", 1, [1, 3, side, side])],
        [value("r3", 1, [1, 32, side, side])],
        initializer=[from_array(array, name) for name, array in weights.items()],
    )
    return onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 17)], ir_version=8)


def run(path, batch):
    """By ONNX's reference: ONNX Runtime's CPU kernels compute FP16 in FP32, where nothing overflows."""
    return onnx.reference.ReferenceEvaluator(str(path)).run(None, {"x": batch})[0]


def test_activations_beyond_fp16_become_an_fp32_island(tmp_path):
    onnx.save(overflowing(), tmp_path / "m.onnx")
    batches = [np.random.default_rng(k).random((1, 3, 8, 8), np.float32) for k in range(3)]
    exact = run(tmp_path / "m.onnx", batches[0])
    convert_to_half(tmp_path / "m.onnx", tmp_path / "blind.onnx")
    assert not np.isfinite(run(tmp_path / "blind.onnx", batches[0])).all(), "the case is a hard one"
    facts = convert_to_half(tmp_path / "m.onnx", tmp_path / "half.onnx", batches[1:])
    assert facts["kept_for_range"] == ["conv1", "conv2", "relu1"]
    assert facts["largest_value"] > LARGEST
    np.testing.assert_allclose(run(tmp_path / "half.onnx", batches[0]), exact, rtol=5e-3)
    card = build_engine(Runtime.TENSORRT_RTX, tmp_path / "half.onnx", tmp_path / "e.engine")
    assert card.precisions == {"HALF": 2, "FLOAT": 2}


def test_training_images_show_the_ranges_and_the_row_names_what_stays(surgered, tmp_path):
    job, bundle, folder = surgered
    rows = {row.runtime: row for row in run_fp16(job, folder, bundle, tmp_path).variants}
    facts = rows[Runtime.TENSORRT_RTX].details["fp16"]
    assert facts["range_images"] == 4
    assert 0 < facts["largest_value"] < LARGEST
    assert facts["kept_for_range"] == []
