"""Tiny jobs with teachers and students for the four tasks, and the bundles that `fetch` makes of them."""

import csv
import json
import wave
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import nn

from components.core.contracts.job import Job
from components.fetch.run import run_fetch
from fixtures.detectors import SIDE, photograph, tiny_faster_rcnn, write_coco

TRAINING = {"epochs": 2, "batch": 4, "learning_rate": 0.001, "validation": 0.25, "precision": "fp32"}
CLASSES = 3
_WORDS = ("up", "down", "left", "right", "good", "bad", "so", "and")
_RATE = 8000


def classifier(width: int = 8, seed: int = 0) -> nn.Module:
    """A convolutional classifier of images 16 x 16."""
    torch.manual_seed(seed)
    return nn.Sequential(
        nn.Conv2d(3, width, 3, 2, 1),
        nn.BatchNorm2d(width),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(2),
        nn.Flatten(),
        nn.Linear(4 * width, CLASSES),
    )


class TextNet(nn.Module):
    """A transformer of one layer, with hidden states [N, tokens, width]."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.embedding = nn.Embedding(16, width)
        self.encoder = nn.TransformerEncoderLayer(width, 2, 2 * width, dropout=0.0, batch_first=True)
        self.head = nn.Linear(width, CLASSES)

    def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> dict[str, torch.Tensor]:
        hidden = self.encoder(self.embedding(input_ids))
        weights = attention_mask.unsqueeze(-1).to(hidden.dtype)
        return {"logits": self.head((hidden * weights).sum(1) / weights.sum(1).clamp(min=1))}


def text_net(width: int = 16, seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    return TextNet(width)


def text_net_of_five() -> nn.Module:
    net = TextNet(16)
    net.head = nn.Linear(16, 5)
    return net


class AudioNet(nn.Module):
    """Convolutions over the frames of a log-mel spectrogram [N, mels, frames]."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.conv = nn.Conv1d(8, width, 3, padding=1)
        self.head = nn.Linear(width, CLASSES)

    def forward(self, audio: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = self.head(torch.relu(self.conv(audio)).mean(-1))
        return logits


def audio_net(width: int = 16, seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    return AudioNet(width)


def make_job(folder: Path, task: str, distill: dict[str, Any], unlabelled: bool = True, **training: Any) -> Job:
    """A job of a task in `folder`, with all of its files; made once."""
    if not folder.exists():
        folder.mkdir(parents=True)
        _WRITERS[task](folder)
    data, fields = _FIELDS[task](folder)
    if unlabelled:
        data["unlabelled"] = _UNLABELLED[task](folder)
    return Job.model_validate(
        {
            "name": "tiny",
            "task": task,
            "data": data,
            "goal": {"min_speedup": "2x", "max_accuracy_drop": 1.0},
            "training": TRAINING | training,
            "distill": distill,
        }
        | fields
    )


def make_bundle(folder: Path, task: str, distill: dict[str, Any], **rest: Any) -> tuple[Job, Path]:
    """`make_job`, and what `fetch` makes of it."""
    job = make_job(folder, task, distill, **rest)
    bundle = folder / "bundle"
    run_fetch(job, bundle)
    return job, bundle


def save_weights(path: Path, module: nn.Module) -> str:
    torch.save(module.state_dict(), path)
    return str(path)


def _write_detection(folder: Path) -> None:
    save_weights(folder / "weights.pt", tiny_faster_rcnn())
    for split, count in (("train", 8), ("test", 2)):
        write_coco(folder / split, count)
    (folder / "unlabelled").mkdir()
    for number in range(5):
        Image.fromarray(photograph(100 + number)).save(folder / "unlabelled" / f"{number}.png")


def _write_classification(folder: Path) -> None:
    save_weights(folder / "weights.pt", classifier())
    draw = np.random.default_rng(0)
    for split, count in (("train", 12), ("test", 4), ("unlabelled", 6)):
        for number in range(count):
            kind = number % CLASSES
            place = folder / split / (f"class{kind}" if split != "unlabelled" else "")
            place.mkdir(parents=True, exist_ok=True)
            pixels = draw.integers(0, 80, (16, 16, 3), np.uint8)
            pixels[..., kind] += 150
            Image.fromarray(pixels).save(place / f"{number:02d}.png")


def _write_text(folder: Path) -> None:
    from tokenizers import Tokenizer, models, pre_tokenizers

    vocabulary = {"[PAD]": 0, "[UNK]": 1} | {word: 2 + number for number, word in enumerate(_WORDS)}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.save(str(folder / "tokenizer.json"))
    save_weights(folder / "weights.pt", text_net())
    for split, count in (("train", 12), ("test", 6)):
        with (folder / f"{split}.csv").open("w", newline="") as stream:
            rows = csv.writer(stream)
            rows.writerow(("text", "label"))
            for number in range(count):
                kind = number % CLASSES
                rows.writerow((f"{_WORDS[kind]} {_WORDS[-1 - number % 4]} number {number}", f"c{kind}"))
    lines = (json.dumps({"text": f"{_WORDS[n]} {_WORDS[0]}"}) for n in range(5))
    (folder / "unlabelled.jsonl").write_text("\n".join(lines))


def _write_audio(folder: Path) -> None:
    save_weights(folder / "weights.pt", audio_net())
    draw = np.random.default_rng(0)
    for split, count in (("train", 12), ("test", 6), ("unlabelled", 5)):
        (folder / split).mkdir()
        names = []
        for number in range(count):
            time = np.arange(_RATE // 4) / _RATE
            tone = np.sin(2 * np.pi * 300 * (1 + number % CLASSES) * time) + draw.normal(0, 0.1, len(time))
            names.append(f"{number}.wav")
            with wave.open(str(folder / split / names[-1]), "wb") as file:
                file.setparams((1, 2, _RATE, 0, "NONE", ""))
                file.writeframes((tone * 8000).astype("<i2").tobytes())
        rows = "\n".join(f"{name},tone{n % CLASSES}" for n, name in enumerate(names))
        (folder / f"{split}.csv").write_text(f"file,label\n{rows}\n")


def _model(name: str, folder: Path) -> dict[str, Any]:
    return {"factory": f"distill_jobs:{name}", "weights": str(folder / "weights.pt")}


def _detection(folder: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    data = {
        split: {"annotations": str(folder / split / "annotations.json"), "images": str(folder / split / "images")}
        for split in ("train", "test")
    }
    model = {"factory": "fixtures.detectors:tiny_faster_rcnn", "weights": str(folder / "weights.pt")}
    return data, {"model": model, "target": {"runtimes": ["onnxruntime"], "input_shape": [1, 3, SIDE, SIDE]}}


def _classification(folder: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    data = {split: {"images": str(folder / split)} for split in ("train", "test")}
    target = {"runtimes": ["onnxruntime"], "input_shape": [1, 3, 16, 16]}
    return data, {"model": _model("classifier", folder), "target": target}


def _text(folder: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    data = {split: {"annotations": str(folder / f"{split}.csv")} for split in ("train", "test")}
    target = {"runtimes": ["onnxruntime"], "input_shape": [1, 8]}
    preprocess = {"tokenizer": str(folder / "tokenizer.json")}
    return data, {"model": _model("text_net", folder), "target": target, "preprocess": preprocess}


def _audio(folder: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    data = {
        split: {"annotations": str(folder / f"{split}.csv"), "audio": str(folder / split)}
        for split in ("train", "test")
    }
    target = {"runtimes": ["onnxruntime"], "input_shape": [1, 8, 20]}
    return data, {"model": _model("audio_net", folder), "target": target, "preprocess": {"sample_rate": _RATE}}


_WRITERS = {
    "detection": _write_detection,
    "classification": _write_classification,
    "text": _write_text,
    "audio": _write_audio,
}
_FIELDS = {"detection": _detection, "classification": _classification, "text": _text, "audio": _audio}
_UNLABELLED = {
    "detection": lambda folder: {"images": str(folder / "unlabelled")},
    "classification": lambda folder: {"images": str(folder / "unlabelled")},
    "text": lambda folder: {"texts": str(folder / "unlabelled.jsonl")},
    "audio": lambda folder: {"audio": str(folder / "unlabelled")},
}
STUDENTS: dict[str, dict[str, Any]] = {
    "detection": {"factory": "fixtures.detectors:tiny_faster_rcnn", "kwargs": {"seed": 5}},
    "classification": {"factory": "distill_jobs:classifier", "kwargs": {"width": 4, "seed": 5}},
    "text": {"factory": "distill_jobs:text_net", "kwargs": {"width": 8, "seed": 5}},
    "audio": {"factory": "distill_jobs:audio_net", "kwargs": {"width": 4, "seed": 5}},
}
HINTS: dict[str, dict[str, Any]] = {
    "detection": {"student": "backbone.body.2", "teacher": "backbone.body.2"},
    "classification": {"student": "2", "teacher": "2"},
    "text": {"student": "encoder", "teacher": "encoder"},
    "audio": {"student": "conv", "teacher": "conv"},
}
