"""The models of the comparison: an ONNX file, arrays to calibrate with and arrays to test with, made once.

No pretrained weights are needed: the classifiers and the text encoder have random ones, and the classifiers' batch
normalizations are set to what real photographs give, so that activations have the scale that a trained network's have.
Their INT8 forms are judged by SQNR against FP32. The two detectors are trained, and are judged by their accuracy.
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

CLASSIFIERS = ("resnet18", "resnet50", "mobilenet_v3_large", "efficientnet_b0")
TEXT = "minilm"
DETECTORS = ("trees", "bccd")
NAMES = (*CLASSIFIERS, TEXT, *DETECTORS)
TEST = 32
"""Samples that accuracy is taken over."""
CALIBRATION = {"resnet50": 300, "mobilenet_v3_large": 300, "efficientnet_b0": 300}
"""Samples that every quantizer is given; of the other models `FEW`, so that the whole comparison ends the same day."""
FEW = 64
_SIDE, _TOKENS, _SEED = 224, 128, 0
_MEAN, _STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
Arrays = dict[str, npt.NDArray[Any]]


@dataclass(frozen=True)
class BenchModel:
    """What all competitors are given."""

    name: str
    folder: Path

    @property
    def onnx(self) -> Path:
        """FP32, batch 1, fixed shapes."""
        return self.folder / "model.onnx"

    @property
    def calibration(self) -> Path:
        """Arrays by input, samples along the first axis."""
        return self.folder / "calibration.npz"

    @property
    def test(self) -> Path:
        """As `calibration`, other samples."""
        return self.folder / "test.npz"

    @property
    def facts(self) -> dict[str, Any]:
        """How to judge it."""
        facts: dict[str, Any] = json.loads((self.folder / "facts.json").read_text())
        return facts


def make(name: str, root: Path, samples: Path) -> BenchModel:
    """The model's folder; what is there already is used.

    Args:
        name: one of `NAMES`.
        root: folder of the models.
        samples: `.hasten/samples`, for photographs and the detectors.
    """
    made = BenchModel(name, root / name)
    if not (made.folder / "facts.json").exists():
        made.folder.mkdir(parents=True, exist_ok=True)
        (_make_detector if name in DETECTORS else _make_text if name == TEXT else _make_classifier)(made, samples)
    return made


def calibration_of(name: str) -> int:
    """Samples that every quantizer of this model is given."""
    return CALIBRATION.get(name, FEW)


def module(made: BenchModel, samples: Path) -> Any:
    """The torch module that the file was exported from."""
    import torch

    if made.name in DETECTORS:
        return _detector(made.name, samples)
    torch.manual_seed(_SEED)
    built = _encoder() if made.name == TEXT else _classifier(made.name)
    built.load_state_dict(torch.load(made.folder / "weights.pt", weights_only=True))
    return built.eval()


def _classifier(name: str) -> Any:
    import torchvision

    return getattr(torchvision.models, name)(weights=None)


def _make_classifier(made: BenchModel, samples: Path) -> None:
    import torch

    images = _photographs(samples, calibration_of(made.name) + TEST)
    torch.manual_seed(_SEED)
    model = _classifier(made.name)
    _settle_batch_norms(model, torch.from_numpy(images[:64]))
    torch.save(model.state_dict(), made.folder / "weights.pt")
    _export(model.eval(), (torch.from_numpy(images[:1]),), ["image"], made.onnx)
    _write(made, {"image": images}, {"metric": "sqnr"})


def _settle_batch_norms(model: Any, images: Any) -> None:
    """Batch statistics of real images instead of 0 and 1: of an untrained network the latter fit no layer."""
    import torch

    for part in model.modules():
        if isinstance(part, torch.nn.BatchNorm2d):
            part.momentum = None
            part.reset_running_stats()
    model.train()
    with torch.no_grad():
        for batch in images.split(16):
            model(batch)


def _encoder() -> Any:
    import torch
    from transformers import BertConfig, BertModel

    class Encoder(torch.nn.Module):
        """A sentence's embedding: the mean of its tokens' last states."""

        def __init__(self) -> None:
            super().__init__()
            config = BertConfig(
                hidden_size=384, num_hidden_layers=6, num_attention_heads=12, intermediate_size=1536, vocab_size=30522
            )
            config._attn_implementation = "eager"
            # Ten times the usual spread: attention that is not uniform, as after training.
            config.initializer_range = 0.1
            self.bert = BertModel(config, add_pooling_layer=False)

        def forward(self, input_ids: Any, attention_mask: Any) -> Any:
            states = self.bert(input_ids=input_ids, attention_mask=attention_mask).last_hidden_state
            weights = attention_mask.unsqueeze(-1).to(states.dtype)
            return (states * weights).sum(1) / weights.sum(1)

    return Encoder()


def _make_text(made: BenchModel, samples: Path) -> None:
    import torch

    torch.manual_seed(_SEED)
    model = _encoder().eval()
    torch.save(model.state_dict(), made.folder / "weights.pt")
    rng = np.random.default_rng(_SEED)
    count = calibration_of(made.name) + TEST
    # Zipf's law: frequent words are much more frequent.
    ids = np.minimum(rng.zipf(1.2, (count, _TOKENS)), 29_000).astype(np.int64) + 1000
    lengths = rng.integers(16, _TOKENS + 1, count)
    mask = (np.arange(_TOKENS)[None] < lengths[:, None]).astype(np.int64)
    arrays = {"input_ids": ids * mask, "attention_mask": mask}
    example = tuple(torch.from_numpy(value[:1]) for value in arrays.values())
    _export(model, example, list(arrays), made.onnx)
    _write(made, arrays, {"metric": "sqnr"})


def _export(model: Any, example: tuple[Any, ...], inputs: list[str], path: Path) -> None:
    import torch

    torch.onnx.export(model, example, path, input_names=inputs, output_names=["output"], opset_version=17, dynamo=False)


def _write(made: BenchModel, arrays: Arrays, facts: dict[str, Any]) -> None:
    np.savez(made.calibration, **{name: value[: calibration_of(made.name)] for name, value in arrays.items()})
    np.savez(made.test, **{name: value[calibration_of(made.name) :] for name, value in arrays.items()})
    (made.folder / "facts.json").write_text(json.dumps(facts))


def _photographs(samples: Path, count: int) -> npt.NDArray[np.float32]:
    """Random crops of the blood cells' training photographs, normalized as for ImageNet, ``[N, 3, 224, 224]``."""
    from PIL import Image

    rng = np.random.default_rng(_SEED)
    data = samples / "bccd" / "data"
    document = json.loads((data / "train.json").read_text())
    names = [record["file_name"] for record in document["images"]]
    images = np.empty((count, 3, _SIDE, _SIDE), np.float32)
    for number in range(count):
        with Image.open(data / "images" / names[int(rng.integers(len(names)))]) as opened:
            image = opened.convert("RGB")
        side = int(rng.integers(_SIDE, min(image.size) + 1))
        left, top = (int(rng.integers(0, free - side + 1)) for free in image.size)
        crop = image.crop((left, top, left + side, top + side)).resize((_SIDE, _SIDE))
        pixels = np.asarray(crop, np.float32) / 255
        images[number] = ((pixels - _MEAN) / _STD).transpose(2, 0, 1)
    return images


def detector_files(name: str, samples: Path) -> tuple[Path, Path, Path, Path]:
    """Training annotations, test annotations, images, weights of a detector."""
    if name == "bccd":
        data = samples / "bccd" / "data"
        weights = samples / "bccd" / "faster_rcnn_mobilenet_v2.safetensors"
        return data / "train.json", data / "test.json", data / "images", weights
    data = samples / "trees"
    weights = Path("pipelines/examples/trees/faster_rcnn_mobilenet_v2.safetensors")
    return data / "train.json", data / "test.json", data / "images", weights


def detector_shape(name: str) -> tuple[int, int]:
    """Height and width of the input."""
    return (480, 640) if name == "bccd" else (416, 416)


def _detector(name: str, samples: Path) -> Any:
    from safetensors.torch import load_file

    from pipelines.samples.compact_faster_rcnn import compact_faster_rcnn

    kwargs: dict[str, Any] = {"num_classes": 4, "image_size": 320} if name == "bccd" else {}
    model = compact_faster_rcnn(**kwargs)
    model.load_state_dict(load_file(detector_files(name, samples)[3]))
    return model.eval()


def _make_detector(made: BenchModel, samples: Path) -> None:
    import torch

    from components.core.tasks.detection import fit, read_split
    from components.export.onnx_export import StockDetector, export_onnx

    train, test, images, _ = detector_files(made.name, samples)
    height, width = detector_shape(made.name)
    split = read_split(train, images)
    order = np.random.default_rng(_SEED).permutation(len(split.images))[: calibration_of(made.name)]
    arrays = np.concatenate([fit(split.images[int(i)].load(), height, width)[0] for i in order]).reshape(
        -1, 3, height, width
    )
    tested = read_split(test, images)
    tests = np.concatenate([fit(one.load(), height, width)[0] for one in tested.images[:TEST]]).reshape(
        -1, 3, height, width
    )
    model = StockDetector(_detector(made.name, samples))
    export_onnx(model, torch.from_numpy(arrays[:1]), made.onnx, dynamic_detections=True)
    np.savez(made.calibration, image=arrays)
    np.savez(made.test, image=tests)
    (made.folder / "facts.json").write_text(json.dumps({"metric": "map"}))
