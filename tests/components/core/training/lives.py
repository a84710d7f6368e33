"""Trains a small network in processes that are killed: `python lives.py FOLDER PRECISION STEPS_OF_DEATH`.

Each death is a SIGKILL that a process gets in the middle of a step, or, as `save3`, halfway through writing its third
checkpoint. The last life ends well and writes the weights. Forked from one interpreter, so that torch loads only once.
"""

import os
import random
import signal
import sys
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save_file
from torch import nn

from components.core import files
from components.core.contracts.job import Training
from components.core.training.checkpoints import Checkpoints
from components.core.training.data import Loader, Shuffled
from components.core.training.loop import Trained, train

COUNT, BATCH = 22, 4  # 6 batches an epoch, the last one filled up
EPOCHS = 3


def network() -> nn.Module:
    torch.manual_seed(3)
    return nn.Sequential(
        nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Dropout(0.3), nn.Linear(4 * 36, 3)
    )


def loader() -> Loader:
    generator = torch.Generator().manual_seed(5)
    images, labels = torch.randn(COUNT, 1, 8, 8, generator=generator), torch.arange(COUNT) % 3

    def make(index: int, chooser: random.Random) -> tuple[torch.Tensor, torch.Tensor]:
        return images[index] * chooser.uniform(0.5, 1.5), labels[index]

    def collate(samples: list[tuple[torch.Tensor, torch.Tensor]]) -> tuple[torch.Tensor, torch.Tensor]:
        return torch.stack([image for image, _ in samples]), torch.stack([label for _, label in samples])

    return lambda share: Shuffled(COUNT, make, collate, BATCH, seed=11, share=share)


def loss(module: nn.Module, batch: tuple[torch.Tensor, torch.Tensor]) -> dict[str, torch.Tensor]:
    images, labels = batch
    # Every global generator has a say, as in augmentations of a user's own.
    noise = torch.from_numpy(np.random.normal(0, 0.1, images.shape)).float() * random.random()
    return {"cross_entropy": nn.functional.cross_entropy(module(images + noise), labels)}


def live(folder: Path, precision: str, death: str) -> Trained:
    calls = 0

    def mortal(module: nn.Module, batch: tuple[torch.Tensor, torch.Tensor]) -> dict[str, torch.Tensor]:
        nonlocal calls
        calls += 1
        if death.isdigit() and calls == int(death):
            os.kill(os.getpid(), signal.SIGKILL)
        return loss(module, batch)

    if death.startswith("save"):
        _die_while_saving(int(death.removeprefix("save")))
    settings = Training.model_validate(
        {
            "epochs": EPOCHS,
            "batch": BATCH,
            "learning_rate": 0.01,
            "precision": precision,
            "checkpoint_every": "0.0001 s",
        }
    )
    module = network()
    checkpoints = Checkpoints(str(folder / f"{precision}.pt"), identity="lives") if death != "whole" else None
    trained = train(module, mortal, loader(), settings, seed=7, checkpoints=checkpoints, device="cpu")
    name = "whole" if death == "whole" else "killed"
    save_file(module.state_dict(), folder / f"{precision}-{name}.safetensors")
    return trained


def _die_while_saving(number: int) -> None:
    """Kills the process with half of its `number`th checkpoint written."""
    saves = 0
    fsync = os.fsync

    def dying(descriptor: int) -> None:
        nonlocal saves
        saves += 1
        if saves == 2 * number - 1:  # a file, then its folder
            os.ftruncate(descriptor, os.fstat(descriptor).st_size // 2)
            os.kill(os.getpid(), signal.SIGKILL)
        fsync(descriptor)

    files.os.fsync = dying


def main(folder: Path, precision: str, deaths: list[str]) -> None:
    for death in ["whole", *deaths, "none"]:
        child = os.fork()
        if child == 0:
            trained = live(folder, precision, death)
            print(death, "resumed at", *trained.resumed_at, flush=True)
            os._exit(0)
        _, status = os.waitpid(child, 0)
        print(death, "killed by", os.WTERMSIG(status), flush=True) if os.WIFSIGNALED(status) else None
        if os.WIFEXITED(status) and os.WEXITSTATUS(status):
            sys.exit(f"the life that was to end with {death} failed")


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2], sys.argv[3].split(","))
