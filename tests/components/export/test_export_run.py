import json

import onnx
import pytest
import torch
from onnx import TensorProto, helper
from torchvision.models.detection import RetinaNet

from components.core.contracts.variant import SOURCES, Manifest, Status
from components.core.errors import UserError
from components.export.run import run_export
from fixtures.detectors import SIDE, tiny_faster_rcnn, tiny_fcos, tiny_retinanet, tiny_ssd
from fixtures.jobs import make_bundle, make_job


def constant_detector(outputs: int = 3) -> onnx.ModelProto:
    """An ONNX detector that always finds the same box."""
    values = {
        "boxes": helper.make_tensor("b", TensorProto.FLOAT, [1, 4], [8, 8, 32, 38]),
        "scores": helper.make_tensor("s", TensorProto.FLOAT, [1], [0.9]),
        "labels": helper.make_tensor("l", TensorProto.INT64, [1], [1]),
    }
    names = list(values)[:outputs]
    nodes = [helper.make_node("Constant", [], [name], value=values[name]) for name in names]
    infos = [helper.make_tensor_value_info(n, values[n].data_type, list(values[n].dims)) for n in names]
    image = helper.make_tensor_value_info("image", TensorProto.FLOAT, [1, 3, SIDE, SIDE])
    return helper.make_model(
        helper.make_graph(nodes, "constant", [image], infos), opset_imports=[helper.make_opsetid("", 17)], ir_version=8
    )


def test_a_faster_rcnn_gives_yardsticks_and_sources_that_agree(tmp_path):
    manifest = run_export(make_job(tmp_path), make_bundle(tmp_path), tmp_path / "out")
    assert [variant.id for variant in manifest.variants] == ["eager", "fp32-onnxruntime", "fp32-openvino"]
    assert [variant.reference for variant in manifest.variants] == [False, True, True]
    assert manifest.labels == {1: "thing1"}
    sources = Manifest.read(tmp_path / "out" / SOURCES)
    assert sources.variants[0].id == "canonical"
    card = json.loads((tmp_path / "out" / "export_card.json").read_text())
    for file in ("stock.onnx", "canonical.onnx"):
        parity = card["parity"][file]
        assert parity["agrees"]
        assert parity["matched"] == parity["detections"] > 20
    operators = {node.op_type for node in onnx.load(tmp_path / "out" / "stock.onnx").graph.node}
    assert "NonZero" in operators, "the yardstick is the untouched export, data-dependent tail and all"
    tried = card["candidate_counts"]["tried"]
    assert tried[0]["counts"] == {"per_level": 120, "proposals": 80}


@pytest.mark.parametrize("make", [tiny_retinanet, tiny_fcos, tiny_ssd])
def test_every_architecture_gives_a_source_that_agrees(tmp_path, make):
    bundle = make_bundle(tmp_path)
    torch.save(make(topk_candidates=300).state_dict(), bundle / "model" / "weights.pt")
    factory = {"factory": f"fixtures.detectors:{make.__name__}", "kwargs": {"topk_candidates": 300}}
    run_export(make_job(tmp_path, model=factory | {"weights": str(tmp_path / "weights.pt")}), bundle, tmp_path / "out")
    sources = Manifest.read(tmp_path / "out" / SOURCES).variants
    assert (sources[0].id, sources[0].status) == ("canonical", Status.OK)
    card = json.loads((tmp_path / "out" / "export_card.json").read_text())
    assert card["parity"]["canonical.onnx"]["matched"] == card["parity"]["canonical.onnx"]["detections"] > 20
    tried, chosen = card["candidate_counts"]["tried"], card["candidate_counts"]["chosen"]
    assert len(tried) > 1
    assert (tmp_path / "out" / SOURCES / "trimmed.onnx").exists() == (chosen != tried[0]["counts"])


def test_a_detector_with_a_tail_of_its_own_is_handed_on_as_it_is(tmp_path):
    bundle = make_bundle(tmp_path)
    torch.save(OwnTail().state_dict(), bundle / "model" / "weights.pt")
    factory = {"factory": f"{__name__}:OwnTail", "weights": str(tmp_path / "weights.pt")}
    run_export(make_job(tmp_path, model=factory), bundle, tmp_path / "out")
    (source,) = Manifest.read(tmp_path / "out" / SOURCES).variants
    assert (source.id, source.status) == ("stock", Status.OK)
    assert "OwnTail has no static re-expression: it has a postprocess_detections of its own" in source.reason


class OwnTail(RetinaNet):
    def __init__(self):
        given = tiny_retinanet()
        super().__init__(given.backbone, 3, 96, 384, anchor_generator=given.anchor_generator, score_thresh=0.001)

    def postprocess_detections(self, *arguments):
        return super().postprocess_detections(*arguments)


def test_another_detector_is_exported_as_it_is(tmp_path):
    bundle = make_bundle(tmp_path)
    job = make_job(tmp_path, model={"factory": f"{__name__}:boxes_of_brightness", "weights": "weights.pt"})
    torch.save({}, bundle / "model" / "weights.pt")
    with pytest.raises(UserError, match=r"weights\.pt"):
        run_export(job, bundle, tmp_path / "out")


def boxes_of_brightness() -> torch.nn.Module:
    return torch.nn.Identity()


def test_an_onnx_file_is_its_own_baseline(tmp_path):
    bundle = make_bundle(tmp_path)
    onnx.save(constant_detector(), bundle / "model" / "detector.onnx")
    manifest = run_export(make_job(tmp_path, model={"onnx": "detector.onnx"}), bundle, tmp_path / "out")
    assert [variant.id for variant in manifest.variants] == ["as-given", "fp32-openvino"]
    assert Manifest.read(tmp_path / "out" / SOURCES).variants[0].status is Status.OK


def test_a_program_is_exported_and_compared(tmp_path):
    class Detector(torch.nn.Module):
        def forward(self, image):
            mean = image.mean()
            return (
                torch.stack([mean * 10, mean * 10, mean * 90, mean * 90]).unsqueeze(0),
                mean[None],
                mean[None].long() + 1,
            )

    bundle = make_bundle(tmp_path)
    program = torch.export.export(Detector(), (torch.zeros(1, 3, SIDE, SIDE),))
    torch.export.save(program, bundle / "model" / "detector.pt2")
    manifest = run_export(make_job(tmp_path, model={"program": "detector.pt2"}), bundle, tmp_path / "out")
    assert [variant.status for variant in manifest.variants] == [Status.OK] * 3
    card = json.loads((tmp_path / "out" / "export_card.json").read_text())
    assert card["parity"]["stock.onnx"]["matched"] == 4


@pytest.mark.parametrize(
    ("model", "words"),
    [
        (constant_detector(outputs=2), "has 2 outputs"),
        (None, "detector.onnx"),  # truncated
    ],
)
def test_an_unusable_onnx_file_is_refused_in_one_line(tmp_path, model, words):
    bundle = make_bundle(tmp_path)
    content = (model or constant_detector()).SerializeToString()
    (bundle / "model" / "detector.onnx").write_bytes(content if model else content[: len(content) // 2])
    with pytest.raises(UserError, match=words) as caught:
        run_export(make_job(tmp_path, model={"onnx": "detector.onnx"}), bundle, tmp_path / "out")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("make", [tiny_faster_rcnn, tiny_retinanet, tiny_fcos, tiny_ssd])
def test_a_batch_of_images_agrees_with_the_eager_model_image_by_image(tmp_path, make):
    bundle = make_bundle(tmp_path, images=5)
    torch.save(make().state_dict(), bundle / "model" / "weights.pt")
    factory = {"factory": f"fixtures.detectors:{make.__name__}", "weights": str(tmp_path / "weights.pt")}
    target = {"runtimes": ["openvino"], "input_shape": [3, 3, SIDE, SIDE]}
    run_export(make_job(tmp_path, model=factory, target=target), bundle, tmp_path / "out")
    card = json.loads((tmp_path / "out" / "export_card.json").read_text())
    for file in ("stock.onnx", f"{SOURCES}/canonical.onnx"):
        parity = card["parity"][file.removeprefix(f"{SOURCES}/")]
        assert parity["images"] == 6
        assert parity["matched"] == parity["detections"] > 60
        graph = onnx.load(tmp_path / "out" / file).graph
        shapes = [[d.dim_value for d in value.type.tensor_type.shape.dim] for value in (*graph.input, *graph.output)]
        most = 30 if make is tiny_faster_rcnn else 40
        assert shapes == [[3, 3, SIDE, SIDE], [3, most, 4], [3, most], [3, most]]


def test_a_batch_of_a_model_without_a_limit_is_refused(tmp_path):
    bundle = make_bundle(tmp_path)
    torch.save(EveryCorner().state_dict(), bundle / "model" / "weights.pt")
    model = {"factory": f"{__name__}:EveryCorner", "weights": str(tmp_path / "weights.pt")}
    target = {"runtimes": ["openvino"], "input_shape": [2, 3, SIDE, SIDE]}
    with pytest.raises(UserError, match="EveryCorner has no detections_per_img"):
        run_export(make_job(tmp_path, model=model, target=target), bundle, tmp_path / "out")


class EveryCorner(torch.nn.Linear):
    def __init__(self):
        super().__init__(1, 1)

    def forward(self, images):
        one = {"boxes": torch.tensor([[0.0, 0, 9, 9]]), "scores": torch.tensor([0.5]), "labels": torch.tensor([1])}
        return [one for _ in images]


def test_an_export_that_disagrees_is_kept_out(tmp_path, monkeypatch):
    """A rewrite that moved boxes would be worse than none: its variant fails, with the count."""
    import components.export.canonical_faster_rcnn as canonical

    decode = canonical.decode
    monkeypatch.setattr(canonical, "decode", lambda *args: decode(*args) + 3)
    run_export(make_job(tmp_path), make_bundle(tmp_path), tmp_path / "out")
    source = Manifest.read(tmp_path / "out" / SOURCES).variants[0]
    assert source.status is Status.FAILED
    assert "detections agree with the eager model" in source.reason
    assert not (tmp_path / "out" / SOURCES / "canonical.onnx").exists()


def test_the_tiny_model_is_the_same_every_time():
    first, second = tiny_faster_rcnn().state_dict(), tiny_faster_rcnn().state_dict()
    assert all(torch.equal(first[name], second[name]) for name in first)
