"""Trains the same network on the same batches in one process or in several that torchrun started: `pair.py FOLDER`."""

import sys
from pathlib import Path

import torch
from lives import BATCH, loader
from safetensors.torch import save_file
from torch import nn

from components.core.contracts.job import Training
from components.core.training.checkpoints import Checkpoints
from components.core.training.loop import train

SETTINGS = Training.model_validate(
    {"epochs": 2, "batch": BATCH, "learning_rate": 0.01, "precision": "fp32", "checkpoint_every": "0.0001 s"}
)


def network(dropout: float) -> nn.Module:
    torch.manual_seed(3)
    # Without batch statistics, which each process takes over its own share.
    return nn.Sequential(
        nn.Conv2d(1, 4, 3),
        nn.ReLU(),
        nn.Flatten(),
        nn.Dropout(dropout),
        nn.Linear(4 * 36, 8),
        nn.ReLU(),
        nn.Linear(8, 3),
    )


def main(folder: Path) -> None:
    gradients: list[dict[str, torch.Tensor]] = []

    def loss(module: nn.Module, batch: tuple[torch.Tensor, torch.Tensor]) -> dict[str, torch.Tensor]:
        # The loop clears gradients after the forward pass: these are what the step before was taken with.
        found = {
            name: parameter.grad.clone() for name, parameter in own.named_parameters() if parameter.grad is not None
        }
        gradients.append(found)
        return {"cross_entropy": nn.functional.cross_entropy(module(batch[0]), batch[1])}

    own = network(0.0)
    trained = train(own, loss, loader(), SETTINGS, seed=7, device="cpu")
    if trained.first:
        flat = {f"{step}/{name}": grad for step, found in enumerate(gradients) for name, grad in found.items()}
        save_file(flat, folder / "gradients.safetensors")
        save_file(own.state_dict(), folder / "weights.safetensors")
        (folder / "processes.txt").write_text(str(trained.processes))

    # With dropout each process draws numbers of its own, which go on where they stopped.
    own = network(0.5)
    train(own, loss, loader(), SETTINGS, seed=7, device="cpu")
    whole = own.state_dict()
    for end in (5, 9, None):
        own = network(0.5)
        checkpoints = Checkpoints(str(folder / "checkpoint.pt"), "pair")
        last = train(own, loss, loader(), SETTINGS, seed=7, device="cpu", checkpoints=checkpoints, max_steps=end)
    assert list(last.resumed_at) == [5, 9]
    assert all(torch.equal(value, whole[name]) for name, value in own.state_dict().items())
    if trained.processes > 1:
        torch.distributed.destroy_process_group()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
