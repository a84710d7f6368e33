"""The loop in this process: loss scaling, averages, limits, signals, what it says."""

import os
import random
import signal
from typing import Any

import pytest
import torch
from torch import nn

from components.core.contracts.job import Precision, Training
from components.core.errors import UserError
from components.core.stepping import listening
from components.core.training import loop, precision
from components.core.training.checkpoints import Checkpoints
from components.core.training.data import Loader, Share, Shuffled
from components.core.training.loop import train
from components.core.training.stopping import DivergedError, StoppedError

COUNT, BATCH = 16, 4


def settings(**changes: Any) -> Training:
    return Training.model_validate(
        {"epochs": 3, "batch": BATCH, "learning_rate": 0.02, "precision": "fp32", "weight_decay": 0} | changes
    )


def network() -> nn.Module:
    torch.manual_seed(1)
    return nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, 1))


def loader(batch: int = BATCH, workers: int = 0) -> Loader:
    generator = torch.Generator().manual_seed(2)
    inputs = torch.randn(COUNT, 6, generator=generator)
    truth = inputs.sum(1, keepdim=True).tanh()

    def make(index: int, chooser: random.Random) -> tuple[torch.Tensor, torch.Tensor]:
        return inputs[index] + 0.01 * chooser.random(), truth[index]

    def collate(samples: list[Any]) -> Any:
        return tuple(torch.stack(parts) for parts in zip(*samples, strict=True))

    return lambda share: Shuffled(COUNT, make, collate, batch, 3, workers, share)


def squared(module: nn.Module, batch: Any, factor: float = 1.0) -> dict[str, torch.Tensor]:
    return {"squared": factor * nn.functional.mse_loss(module(batch[0]).float(), batch[1])}


def weights(module: nn.Module) -> torch.Tensor:
    return torch.cat([parameter.detach().flatten() for parameter in module.parameters()])


def underflowing(module: nn.Module, batch: Any) -> dict[str, torch.Tensor]:
    """Gradients of 1e-8 and less: below the smallest number that FP16 has."""
    return squared(module, batch, factor=1e-8)


def test_it_learns_and_hands_on_the_averaged_weights_in_eval_mode():
    module = network()
    done = train(module, squared, loader(), settings(epochs=20), seed=1, device="cpu")
    assert (done.steps, done.planned_steps, done.stopped, done.precision) == (80, 80, "", Precision.FP32)
    losses = [entry["losses"]["squared"] for entry in done.journal.epochs]
    assert len(losses) == 20
    assert losses[-1] < 0.3 * losses[0]
    assert done.journal.epochs[-1]["learning_rate"] < 0.02 * settings().learning_rate
    assert not module.training
    assert done.wall_seconds > 0
    assert done.core_seconds > 0
    last = network()
    train(last, squared, loader(), settings(epochs=20, ema=False), seed=1, device="cpu")
    assert not torch.equal(weights(module), weights(last))
    assert (weights(module) - weights(last)).abs().max() < 0.3


def test_a_model_that_underflows_in_fp16_survives_with_loss_scaling(monkeypatch):
    module, start = network(), weights(network())
    done = train(module, underflowing, loader(), settings(precision="fp16", epochs=20), seed=1, device="cpu")
    assert done.precision is Precision.FP16
    losses = [entry["losses"]["squared"] for entry in done.journal.epochs]
    assert losses[-1] < 0.5 * losses[0]
    assert done.journal.scales[0] == (1, 65536.0)

    # The same without a scaler: every gradient is 0, and no weight moves.
    monkeypatch.setattr(precision, "_autocast", lambda *_: precision.Autocast("bf16-mixed", "cpu"))
    monkeypatch.setattr(precision.Autocast, "forward_context", lambda _: torch.autocast("cpu", torch.float16))
    module = network()
    train(module, underflowing, loader(), settings(precision="fp16", ema=False), seed=1, device="cpu")
    assert torch.equal(weights(module), start)


def test_steps_that_overflow_are_left_out_and_logged():
    calls = 0

    def overflowing(module: nn.Module, batch: Any) -> dict[str, torch.Tensor]:
        nonlocal calls
        calls += 1
        return squared(module, batch, factor=1e5 if calls in (3, 4) else 0.01)

    done = train(network(), overflowing, loader(), settings(precision="fp16"), seed=1, device="cpu")
    assert done.journal.skipped == [3, 4]
    assert done.journal.scales == [(1, 65536.0), (3, 32768.0), (4, 16384.0)]
    assert [entry["skipped"] for entry in done.journal.epochs] == [2, 0, 0]
    assert all(entry["losses"]["squared"] < 100 for entry in done.journal.epochs)


@pytest.mark.parametrize("kind", ["fp32", "bf16", "fp16"])
def test_gradients_that_stay_infinite_end_it_with_one_line(kind):
    def broken(module: nn.Module, batch: Any) -> dict[str, torch.Tensor]:
        return squared(module, batch, factor=float("nan"))

    module = network()
    with pytest.raises(DivergedError, match=r"30 steps in a row.*lower training.learning_rate") as caught:
        train(module, broken, loader(), settings(precision=kind, epochs=50), seed=1, device="cpu")
    assert ("loss scale" in str(caught.value)) == (kind == "fp16")
    assert torch.equal(weights(module), weights(network()))


def test_boxes_in_pixels_are_not_rounded_on_the_way_in():
    seen: list[torch.dtype] = []

    class Looking(nn.Linear):
        def forward(self, inputs: torch.Tensor) -> torch.Tensor:
            seen.append(inputs.dtype)
            output = super().forward(inputs)
            seen.append(output.dtype)
            return output

    def loss(module: nn.Module, batch: Any) -> dict[str, torch.Tensor]:
        found = module(batch[0])
        seen.append(found.dtype)
        return {"squared": found.square().mean()}

    train(Looking(6, 1), loss, loader(), settings(precision="bf16"), seed=1, device="cpu", max_steps=1)
    assert seen == [torch.float32, torch.bfloat16, torch.float32]


def test_auto_is_bfloat16_on_a_cpu():
    done = train(network(), squared, loader(), settings(precision="auto"), seed=1, device="cpu", max_steps=1)
    assert done.precision is Precision.BF16


def test_the_norm_of_gradients_is_clipped():
    norms: list[float] = []

    def loss(module: nn.Module, batch: Any) -> dict[str, torch.Tensor]:
        found = [parameter.grad for parameter in own.parameters() if parameter.grad is not None]
        norms.append(float(torch.cat([gradient.flatten() for gradient in found]).norm()) if found else 0.0)
        return squared(module, batch, factor=1000.0)

    own = network()
    train(own, loss, loader(), settings(clip=0.5), seed=1, device="cpu")
    assert max(norms) == pytest.approx(0.5, rel=1e-3)
    own = network()
    norms.clear()
    train(own, loss, loader(), settings(clip=None), seed=1, device="cpu")
    assert max(norms) > 10


@pytest.mark.parametrize("limit", ["max_time", "max_core_time"])
def test_a_limit_ends_training_early_and_keeps_what_was_learned(tmp_path, limit):
    few = settings(**{limit: "0.0001 s"})
    checkpoints = Checkpoints(str(tmp_path / "c.pt"), "x")
    module = network()
    done = train(module, squared, loader(), few, seed=1, device="cpu", checkpoints=checkpoints)
    assert done.steps == 1
    assert done.stopped == f"training.{limit} (0.0001 s) is used up"
    assert not torch.equal(weights(module), weights(network()))
    # What was spent before an interruption counts, and more time lets it go on.
    again = train(network(), squared, loader(), few, seed=1, device="cpu", checkpoints=checkpoints)
    assert (again.steps, again.resumed_at) == (1, (1,))
    more = train(network(), squared, loader(), settings(), seed=1, device="cpu", checkpoints=checkpoints)
    assert (more.steps, more.stopped) == (12, "")
    assert more.wall_seconds > done.wall_seconds


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_stops_it_at_a_step_and_the_line_says_how_to_go_on(tmp_path, number):
    calls = 0
    before = signal.getsignal(number)

    def interrupted(module: nn.Module, batch: Any) -> dict[str, torch.Tensor]:
        nonlocal calls
        calls += 1
        if calls == 6:
            os.kill(os.getpid(), number)
        return squared(module, batch)

    checkpoints = Checkpoints(str(tmp_path / "c.pt"), "x")
    with pytest.raises(StoppedError) as caught:
        train(network(), interrupted, loader(), settings(), seed=1, device="cpu", checkpoints=checkpoints)
    place = tmp_path / "c.pt"
    assert str(caught.value) == (
        f"training stopped by {number.name} after step 6 of 12; the same command goes on from there ({place})"
    )
    assert signal.getsignal(number) is before
    whole, resumed = network(), network()
    train(whole, squared, loader(), settings(), seed=1, device="cpu")
    done = train(resumed, squared, loader(), settings(), seed=1, device="cpu", checkpoints=checkpoints)
    assert done.resumed_at == (6,)
    assert torch.equal(weights(whole), weights(resumed))


def test_it_says_epoch_loss_and_time_left(monkeypatch):
    monkeypatch.setattr(loop, "_REPORT_EVERY", 0.0)
    lines: list[tuple[str, float | None, float | None]] = []
    with listening(lambda message, done, total: lines.append((message, done, total))):
        train(network(), underflowing, loader(), settings(precision="fp16"), seed=1, device="cpu")
    assert lines[-1][1:] == (12, 12)
    assert lines[-1][0].startswith("epoch 3/3, loss ")
    assert lines[-1][0].endswith(", loss scale 65536, 0 s left")
    assert [done for _, done, _ in lines] == sorted(done or 0 for _, done, _ in lines)


def test_a_checkpoint_of_other_data_or_another_training_is_left_alone(tmp_path):
    place = str(tmp_path / "c.pt")
    short = settings(epochs=1)
    train(network(), squared, loader(), short, seed=1, device="cpu", checkpoints=Checkpoints(place, "x"))
    said: list[str] = []
    with listening(lambda message, *_: said.append(message)):
        other = train(network(), squared, loader(), short, seed=1, device="cpu", checkpoints=Checkpoints(place, "y"))
    assert other.resumed_at == ()
    assert any("is of another training" in line for line in said)
    said.clear()
    twice = settings(epochs=2, batch=8)
    with listening(lambda message, *_: said.append(message)):
        other = train(network(), squared, loader(8), twice, seed=1, device="cpu", checkpoints=Checkpoints(place, "y"))
    assert other.resumed_at == ()
    assert any("is of other data" in line for line in said)


def test_processes_that_read_ahead_change_nothing():
    ones, others = network(), network()
    train(ones, squared, loader(), settings(), seed=1, device="cpu")
    train(others, squared, loader(workers=2), settings(), seed=1, device="cpu")
    assert torch.equal(weights(ones), weights(others))


def test_a_batch_that_cannot_be_shared_is_refused():
    with pytest.raises(UserError, match=r"training.batch 4 cannot be shared by 3 processes"):
        loader()(Share(0, 3))


@pytest.mark.gpu
def test_mixed_precision_trains_on_a_gpu():
    if not torch.cuda.is_available():
        pytest.skip("no GPU")
    module = network()
    done = train(module, squared, loader(), settings(precision="auto", epochs=20), seed=1)
    losses = [entry["losses"]["squared"] for entry in done.journal.epochs]
    assert done.device == "cuda"
    assert losses[-1] < 0.5 * losses[0]
