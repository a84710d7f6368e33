"""The training loop of every rung that trains: data, forward, loss, backward, clip, step, average, log, checkpoint."""

import math
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch

from components.core.contracts.job import Precision, Training
from components.core.stepping import progress
from components.core.training.checkpoints import Checkpoints
from components.core.training.data import Loader, Share
from components.core.training.journal import Journal
from components.core.training.precision import launch, precision_of, usable_device
from components.core.training.run import Run, start
from components.core.training.stopping import DivergedError, StoppedError, limit_reached, stop_requests, until_limit

Loss = Callable[[torch.nn.Module, Any], dict[str, torch.Tensor]]
"""Calls the module on a batch, on the module's device, and returns the losses by name; their sum is minimised."""
MAX_SKIPPED = 30
"""Steps in a row whose gradients overflow, after which training is given up; a loss scale halves with each."""
_REPORT_EVERY = 0.5
"""Seconds between two lines about the progress; the numbers in them always differ."""


@dataclass(frozen=True)
class Trained:
    """How a training went; the module that was given holds the weights."""

    precision: Precision
    device: str
    processes: int
    steps: int
    planned_steps: int
    stopped: str
    """Why it ended before its last epoch; empty if it did not."""
    resumed_at: tuple[int, ...]
    wall_seconds: float
    core_seconds: float
    journal: Journal
    first: bool
    """Whether this process is the one that writes results."""


def train(
    module: torch.nn.Module,
    loss: Loss,
    loader: Loader,
    settings: Training,
    *,
    seed: int,
    checkpoints: Checkpoints | None = None,
    device: str | None = None,
    max_steps: int | None = None,
) -> Trained:
    """Trains `module` in place; afterwards it holds the averaged weights and is in eval mode.

    Run by `torchrun`, each process trains on its share of every batch; a checkpoint of the same training is taken up.

    Args:
        module: what to train.
        loss: how.
        loader: gives the batches.
        settings: precision, learning rate, epochs, limits.
        seed: of dropout and whatever else draws from torch's, NumPy's or Python's own generator.
        checkpoints: where to keep them; None: nowhere.
        device: `cpu` or `cuda`; default: a GPU where there is one.
        max_steps: end after so many of the schedule, without an error; more of them go on from there another time.

    Raises:
        StoppedError: SIGINT or SIGTERM came; a checkpoint was written.
        DivergedError: the gradients are no numbers any more.
        UserError: the settings do not fit the data or the machine.
    """
    fabric = launch(settings.precision, device or usable_device())
    data = loader(Share(fabric.global_rank, fabric.world_size))
    steps = settings.epochs * len(data)
    run = start(fabric, module, settings, steps, seed)
    if checkpoints:
        run.take_up(checkpoints, data, seed)
    report = _Reporter(run, settings, len(data))
    with stop_requests() as asked:
        run.stopped = _end(run, settings, max_steps)
        while run.epoch < settings.epochs and not run.stopped:
            for batch in data.epoch(run.epoch, first=run.batch):
                began = time.perf_counter()
                losses = loss(run.model, fabric.to_device(batch))
                total = torch.stack([value.float() for value in losses.values()]).sum()
                run.optimizer.zero_grad()
                fabric.backward(total)
                norm = fabric.clip_gradients(
                    run.model, run.optimizer, max_norm=settings.clip or math.inf, error_if_nonfinite=False
                )
                finite = _step(run, norm)
                run.step, run.batch = run.step + 1, run.batch + 1
                values = {name: float(value.detach()) for name, value in losses.items()}
                seconds = time.perf_counter() - began
                run.journal.add(run.step, values, finite=finite, scale=run.scale(), seconds=seconds)
                report()
                _refuse_divergence(run)
                signal_number = run.spend(asked())
                run.stopped = _end(run, settings, max_steps)
                if signal_number:
                    raise _stop(run, steps, checkpoints, data, signal_number)
                if run.stopped:
                    break
                if checkpoints and run.is_due(settings.checkpoint_every):
                    run.save(checkpoints, data)
            else:
                run.epoch, run.batch = run.epoch + 1, 0
                run.journal.close_epoch(run.epoch, run.learning_rate)
    if checkpoints:
        run.save(checkpoints, data)
    run.finish()
    return _trained(run, steps)


def _step(run: Run, norm: Any) -> bool:
    """Updates the weights, and the loss scale; False, and no update, if the gradients overflowed."""
    finite = bool(torch.isfinite(norm))
    if finite or run.scale() is not None:  # a scaler leaves such a step out itself, and learns from it
        run.optimizer.step()
    if finite:
        run.schedule.step()
        if run.average is not None:
            run.average.update_parameters(run.module)
    return finite


def _end(run: Run, settings: Training, max_steps: int | None) -> str:
    if max_steps is not None and run.step >= max_steps:
        return f"{max_steps} steps were asked for"
    return limit_reached(settings, run.wall_seconds, run.core_seconds)


def _refuse_divergence(run: Run) -> None:
    if run.journal.streak >= MAX_SKIPPED:
        scale = run.scale()
        with_scale = f" at a loss scale of {scale:g}" if scale is not None else ""
        raise DivergedError(
            f"training diverged: the gradients of {MAX_SKIPPED} steps in a row, up to step {run.step}, are no finite "
            f"numbers{with_scale}; lower training.learning_rate or set training.precision to fp32"
        )


def _stop(run: Run, steps: int, checkpoints: Checkpoints | None, data: Any, number: int) -> StoppedError:
    where = "nothing was kept"
    if checkpoints:
        run.save(checkpoints, data)
        where = f"the same command goes on from there ({checkpoints.uri})"
    names = {int(known): known.name for known in signal.Signals}
    # Of several processes that were asked, the numbers were added up.
    name = names.get(number // run.fabric.world_size, "a signal")
    return StoppedError(f"training stopped by {name} after step {run.step} of {steps}; {where}", number)


class _Reporter:
    """Says epoch, loss and time left, of the first process."""

    def __init__(self, run: Run, settings: Training, batches: int) -> None:
        self._run, self._settings, self._batches = run, settings, batches
        self._began, self._from = time.monotonic(), run.step
        self._said = -math.inf

    def __call__(self) -> None:
        run, total = self._run, self._settings.epochs * self._batches
        now = time.monotonic()
        if not run.fabric.is_global_zero or (now - self._said < _REPORT_EVERY and run.step < total):
            return
        self._said = now
        pace = (now - self._began) / max(run.step - self._from, 1)
        limit = until_limit(self._settings, run.wall_seconds, run.core_seconds)
        left = _duration(min(pace * (total - run.step), limit))
        scale = run.scale()
        scaled = f", loss scale {scale:g}" if scale is not None else ""
        epoch = f"epoch {run.epoch + 1}/{self._settings.epochs}"
        progress(f"{epoch}, loss {run.journal.recent:.3g}{scaled}, {left} left", run.step, total)


def _duration(seconds: float) -> str:
    if seconds < 60:
        return f"{seconds:.0f} s"
    if seconds < 3600:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.1f} h"


def _trained(run: Run, steps: int) -> Trained:
    fabric = run.fabric
    return Trained(
        precision=precision_of(fabric),
        device=fabric.device.type,
        processes=fabric.world_size,
        steps=run.step,
        planned_steps=steps,
        stopped=run.stopped,
        resumed_at=tuple(run.resumed_at),
        wall_seconds=round(run.wall_seconds, 3),
        core_seconds=round(run.core_seconds, 3),
        journal=run.journal,
        first=fabric.is_global_zero,
    )
