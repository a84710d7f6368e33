"""Runtimes behind their interface: the same detections from each, and honest reasons where one cannot run."""

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper

from components.core import machine
from components.core.contracts.job import Job, Runtime
from components.core.contracts.variant import Variant
from components.core.errors import StepError
from components.core.runtimes.interface import availability, load_session
from components.core.runtimes.torch_eager import TorchSession

BATCH = np.random.default_rng(0).random((1, 3, 32, 32), np.float32)


class Detector(torch.nn.Module):
    """Boxes from the image's mean, so that the input matters; one row of padding."""

    def forward(self, image: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        size = image.mean() * 20
        boxes = torch.stack([torch.zeros(4), size * torch.tensor([0.0, 0, 1, 1]), torch.zeros(4)])
        return boxes, torch.tensor([0.75, 0.5, -1]), torch.tensor([2, 1, 0])


class ListDetector(torch.nn.Module):
    """The same as torchvision's detectors are called."""

    def forward(self, images: list[torch.Tensor]) -> list[dict[str, torch.Tensor]]:
        boxes, scores, labels = Detector()(images[0][None])
        return [{"labels": labels[:2], "boxes": boxes[:2], "scores": scores[:2]}]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("models")
    write_onnx(folder / "d.onnx", ["boxes", "scores", "labels"])
    write_onnx(folder / "renamed.onnx", ["b", "s", "l"])
    torch.export.save(torch.export.export(Detector(), (torch.rand(1, 3, 32, 32),)), folder / "d.pt2")
    return folder


def write_onnx(path, names) -> None:
    boxes, scores, labels = names
    nodes = [
        helper.make_node("ReduceMean", ["image"], ["mean"], keepdims=0),
        helper.make_node("Mul", ["mean", "sides"], [boxes]),
        helper.make_node("Identity", ["some_scores"], [scores]),
        helper.make_node("Identity", ["some_labels"], [labels]),
    ]
    sides = [0.0] * 6 + [20.0, 20.0] + [0.0] * 4
    graph = helper.make_graph(
        nodes,
        "detector",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, [1, 3, 32, 32])],
        [
            helper.make_tensor_value_info(labels, TensorProto.INT64, [3]),
            helper.make_tensor_value_info(boxes, TensorProto.FLOAT, [3, 4]),
            helper.make_tensor_value_info(scores, TensorProto.FLOAT, [3]),
        ]
        if boxes == "boxes"
        else [
            helper.make_tensor_value_info(boxes, TensorProto.FLOAT, [3, 4]),
            helper.make_tensor_value_info(scores, TensorProto.FLOAT, [3]),
            helper.make_tensor_value_info(labels, TensorProto.INT64, [3]),
        ],
        [
            helper.make_tensor("sides", TensorProto.FLOAT, [3, 4], sides),
            helper.make_tensor("some_scores", TensorProto.FLOAT, [3], [0.75, 0.5, -1]),
            helper.make_tensor("some_labels", TensorProto.INT64, [3], [2, 1, 0]),
        ],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9), path)


def variant(runtime, file, **options) -> Variant:
    return Variant(id="x", runtime=runtime, techniques=[], file=file, options=options)


@pytest.mark.parametrize(
    ("runtime", "file"),
    [
        (Runtime.ONNXRUNTIME, "d.onnx"),
        (Runtime.ONNXRUNTIME, "renamed.onnx"),
        (Runtime.OPENVINO, "d.onnx"),
        (Runtime.OPENVINO, "renamed.onnx"),
        (Runtime.TORCH, "d.pt2"),
    ],
)
def test_every_runtime_gives_the_same_detections(folder, runtime, file):
    (found,) = load_session(variant(runtime, file), folder, None, None, threads=1).run(BATCH)
    side = 20 * BATCH.mean()
    np.testing.assert_allclose(found.boxes, [[0, 0, 0, 0], [0, 0, side, side]], rtol=1e-5)
    assert found.scores.tolist() == [0.75, 0.5]
    assert found.labels.tolist() == [2, 1]
    assert (found.boxes.dtype, found.scores.dtype, found.labels.dtype) == (np.float32, np.float32, np.int64)


def test_results_outlive_the_next_call(folder):
    for runtime in (Runtime.ONNXRUNTIME, Runtime.OPENVINO):
        session = load_session(variant(runtime, "d.onnx"), folder, None, None, threads=1)
        (first,) = session.run(BATCH)
        kept = first.boxes.copy()
        session.run(np.zeros_like(BATCH))
        np.testing.assert_array_equal(first.boxes, kept)


def test_torchvisions_convention_and_three_tensors_give_the_same():
    (one,) = TorchSession(ListDetector(), "cpu", takes_list=True).run(BATCH)
    (other,) = TorchSession(Detector(), "cpu", takes_list=False).run(BATCH)
    for left, right in zip(one, other, strict=True):
        np.testing.assert_array_equal(left, right)


class BatchDetector(torch.nn.Module):
    """`Detector` for a batch, padded to one number of boxes."""

    def forward(self, images: torch.Tensor) -> tuple[torch.Tensor, ...]:
        return tuple(map(torch.stack, zip(*[Detector()(image[None]) for image in images], strict=True)))


class ListOfImages(torch.nn.Module):
    """`Detector` as torchvision's are called, without padding."""

    def forward(self, images: list[torch.Tensor]) -> list[dict[str, torch.Tensor]]:
        return [ListDetector()([image])[0] for image in images]


@pytest.mark.parametrize("runtime", [Runtime.ONNXRUNTIME, Runtime.OPENVINO, Runtime.TORCH])
def test_a_batch_gives_what_its_images_give_one_by_one(tmp_path, runtime):
    batch = np.random.default_rng(1).random((3, 3, 32, 32), np.float32) * np.float32([0.2, 0.5, 1]).reshape(3, 1, 1, 1)
    expected = [TorchSession(Detector(), "cpu", takes_list=False).run(batch[i : i + 1])[0] for i in range(3)]
    if runtime is Runtime.TORCH:
        found = TorchSession(ListOfImages(), "cpu", takes_list=True).run(batch)
        also = TorchSession(BatchDetector(), "cpu", takes_list=False).run(batch)
        assert [one.scores.tolist() for one in also] == [one.scores.tolist() for one in found]
    else:
        names = ["boxes", "scores", "labels"]
        torch.onnx.export(
            BatchDetector(), (torch.from_numpy(batch),), tmp_path / "b.onnx", dynamo=False, output_names=names
        )
        found = load_session(variant(runtime, "b.onnx"), tmp_path, None, None, threads=1).run(batch)
    assert len(found) == 3
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_allclose(one.boxes, other.boxes, rtol=1e-5)
        assert one.labels.tolist() == other.labels.tolist()


def test_a_model_for_one_image_is_not_taken_for_a_batch(folder):
    many = np.concatenate([BATCH, BATCH])
    with pytest.raises(StepError, match=r"for 2 images are .*; expected \[2, D, 4\]"):
        TorchSession(Detector(), "cpu", takes_list=False).run(many)


@pytest.mark.parametrize(("output", "words"), [({"boxes": 1}, "lacks labels, scores"), (3, "returned int")])
def test_other_outputs_are_named(output, words):
    class Odd(torch.nn.Module):
        def forward(self, image):
            return output

    with pytest.raises(StepError, match=words):
        TorchSession(Odd(), "cpu", takes_list=False).run(BATCH)


def precision_of(folder, monkeypatch, **options) -> str:
    import openvino

    from components.core.runtimes import openvino as adapter

    compiled = []
    monkeypatch.setattr(adapter, "OpenVinoSession", lambda model, _task: compiled.append(model))
    load_session(variant(Runtime.OPENVINO, "d.onnx", **options), folder, None, None, threads=2)
    properties = compiled[0]
    assert properties.get_property("INFERENCE_NUM_THREADS") == 2
    assert properties.get_property("NUM_STREAMS") == 1
    names = {openvino.Type.f32: "f32", openvino.Type.bf16: "bf16", openvino.Type.f16: "f16"}
    return names[properties.get_property("INFERENCE_PRECISION_HINT")]


def test_openvino_computes_in_fp32_unless_told_otherwise(folder, monkeypatch):
    assert precision_of(folder, monkeypatch) == "f32"
    if "avx512_bf16" in machine.cpu_flags():
        assert precision_of(folder, monkeypatch, INFERENCE_PRECISION_HINT="bf16") == "bf16"


def test_reasons_for_not_running_here(monkeypatch):
    monkeypatch.setattr(machine, "gpus", tuple)
    assert availability(Runtime.ONNXRUNTIME) is None
    assert availability(Runtime.ONNXRUNTIME, "cpu") is None
    assert availability(Runtime.ONNXRUNTIME, "cuda:0") == "target.device is cuda:0 and there is no GPU"
    assert "OpenVINO runs on the CPU" in availability(Runtime.OPENVINO, "cuda")
    assert availability(Runtime.TENSORRT) == "no GPU"
    assert availability(Runtime.TENSORRT_RTX, "cpu") == "no GPU"
    monkeypatch.setattr(machine, "gpus", lambda: (machine.Gpu("any", 1, "1", "8.6"),))
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None if name == "openvino" else name)
    assert availability(Runtime.OPENVINO) == "openvino is not installed (pip install 'hasten[openvino]')"
    assert availability(Runtime.TENSORRT, "cpu") == "target.device is cpu"
    assert availability(Runtime.TENSORRT, "cuda") is None


def test_a_cuda_target_needs_a_cuda_provider(folder, monkeypatch):
    monkeypatch.setattr(machine, "gpus", lambda: (machine.Gpu("any", 1, "1", "8.6"),))
    split = {"annotations": "a", "images": "b"}
    job = Job.model_validate(
        {
            "name": "t",
            "model": {"onnx": "m.onnx"},
            "data": {"train": split, "test": split},
            "target": {"device": "cuda", "runtimes": ["onnxruntime"], "input_shape": [1, 3, 32, 32]},
            "goal": {"min_speedup": "2x", "max_accuracy_drop": 0},
        }
    )
    with pytest.raises(StepError, match="no CUDA provider"):
        load_session(variant(Runtime.ONNXRUNTIME, "d.onnx"), folder, job, None, threads=1)


def test_missing_files_and_models_are_named(folder):
    with pytest.raises(StepError, match=r"gone\.onnx is not in"):
        load_session(variant(Runtime.ONNXRUNTIME, "gone.onnx"), folder, None, None, threads=1)
    with pytest.raises(StepError, match="no job that names a model"):
        load_session(variant(Runtime.TORCH, None), folder, None, None, threads=1)
