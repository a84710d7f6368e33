"""Everything that changes while training, in one place: what a checkpoint holds, and how it is taken up again."""

import time
from dataclasses import dataclass, field
from typing import Any

import torch
from lightning_fabric import Fabric
from torch.optim.lr_scheduler import LambdaLR
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from components.core.contracts.job import Training
from components.core.stepping import progress
from components.core.training import randomness
from components.core.training.checkpoints import Checkpoints
from components.core.training.data import Batches
from components.core.training.journal import Journal
from components.core.training.precision import scaler_of
from components.core.training.schedule import average_decay, warmup_cosine


@dataclass
class Run:
    """One training, somewhere between its first and its last step."""

    fabric: Fabric
    module: torch.nn.Module
    """The weights that are trained."""
    model: Any
    """The same, wrapped by Fabric: autocast, and in several processes the exchange of gradients."""
    optimizer: Any
    schedule: LambdaLR
    average: AveragedModel | None
    journal: Journal = field(default_factory=Journal)
    epoch: int = 0
    batch: int = 0
    """The next batch of that epoch."""
    step: int = 0
    wall_seconds: float = 0.0
    core_seconds: float = 0.0
    """Processor time of all processes together."""
    resumed_at: list[int] = field(default_factory=list)
    """Steps at which it was taken up again."""
    stopped: str = ""
    """Why it ended before its last epoch."""

    def __post_init__(self) -> None:
        self._mark = (time.monotonic(), time.process_time())
        self._saved_at = self.wall_seconds

    @property
    def learning_rate(self) -> float:
        """Of the next step."""
        return float(self.optimizer.param_groups[0]["lr"])

    def spend(self, asked: int) -> int:
        """Adds the time since the last call; returns the signal that any process was asked to stop by, or 0."""
        now = (time.monotonic(), time.process_time())
        wall, cores = (after - before for after, before in zip(now, self._mark, strict=True))
        self._mark = now
        world = self.fabric.world_size
        shared = torch.tensor([wall / world, cores, float(asked)], dtype=torch.float64, device=self.fabric.device)
        # Added up over the processes, so that all of them decide alike.
        wall, cores, asked_any = self.fabric.all_reduce(shared, reduce_op="sum").tolist()  # type: ignore[union-attr]
        self.wall_seconds += wall
        self.core_seconds += cores
        return int(asked_any)

    def is_due(self, pause: float) -> bool:
        """Whether the last checkpoint is older than `pause` seconds of training."""
        return self.wall_seconds - self._saved_at >= pause

    def save(self, checkpoints: Checkpoints, data: Batches) -> None:
        """Writes a checkpoint; every process calls it, the first one writes."""
        self._saved_at = self.wall_seconds
        random_states = randomness.capture(self.fabric)
        if self.fabric.is_global_zero:
            checkpoints.save(self._state(data, random_states))
        self.fabric.barrier()

    def take_up(self, checkpoints: Checkpoints, data: Batches, seed: int) -> None:
        """Goes on from the last checkpoint, if there is one of this training and this data."""
        fabric = self.fabric
        state = fabric.broadcast(checkpoints.load() if fabric.is_global_zero else None)
        if state is None:
            return
        if state["order"] != data.order(state["epoch"]):
            progress("the checkpoint is of other data; training starts from the beginning")
            return
        self.module.load_state_dict(state["module"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.schedule.load_state_dict(state["schedule"])
        if self.average is not None:
            self.average.load_state_dict(state["average"])
        fabric.strategy.precision.load_state_dict(state["scaler"])
        self.journal = Journal(**state["journal"])
        self.epoch, self.batch, self.step = state["epoch"], state["batch"], state["step"]
        self.wall_seconds, self.core_seconds = state["wall_seconds"], state["core_seconds"]
        self._saved_at = self.wall_seconds
        self.resumed_at = [*state["resumed_at"], self.step]
        if not randomness.restore(state["random"], fabric.global_rank, fabric.world_size):
            # With another number of processes no run is the same to the bit; each still needs numbers of its own.
            randomness.seed_all(seed + self.step, fabric.global_rank)

    def _state(self, data: Batches, random_states: randomness.States) -> dict[str, Any]:
        return {
            "module": self.module.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "schedule": self.schedule.state_dict(),
            "average": self.average.state_dict() if self.average is not None else {},
            "scaler": self.fabric.strategy.precision.state_dict(),
            "journal": self.journal.state(),
            "epoch": self.epoch,
            "batch": self.batch,
            "step": self.step,
            "order": data.order(self.epoch),
            "wall_seconds": self.wall_seconds,
            "core_seconds": self.core_seconds,
            "resumed_at": self.resumed_at,
            "random": random_states,
        }

    def scale(self) -> float | None:
        """The loss scale; None without a scaler."""
        scaler = scaler_of(self.fabric)
        return float(scaler.get_scale()) if scaler is not None else None

    def finish(self) -> None:
        """Puts the averaged weights into the module, ready for inference."""
        if self.average is not None and int(self.average.n_averaged) > 0:
            self.module.load_state_dict(self.average.module.state_dict())
        self.module.eval()


def start(fabric: Fabric, module: torch.nn.Module, settings: Training, steps: int, seed: int) -> Run:
    """A run before its first step: AdamW, warm-up and cosine, the moving average.

    Args:
        fabric: of `precision.launch`.
        module: what to train; its parameters that need no gradient stay as they are.
        settings: how.
        steps: how many there will be.
        seed: of the random numbers.
    """
    randomness.seed_all(seed, fabric.global_rank)
    module.to(fabric.device).train()
    average = _average(module, settings.ema_decay or average_decay(steps)) if settings.ema else None
    optimizer = torch.optim.AdamW(
        [parameter for parameter in module.parameters() if parameter.requires_grad],
        lr=settings.learning_rate,
        weight_decay=settings.weight_decay,
    )
    schedule = LambdaLR(optimizer, lambda step: warmup_cosine(step, steps, settings.warmup))
    model, wrapped = fabric.setup(module, optimizer)
    return Run(fabric, module, model, wrapped, schedule, average)


def _average(module: torch.nn.Module, decay: float) -> AveragedModel:
    function = get_ema_multi_avg_fn(decay)  # type: ignore[no-untyped-call]
    return AveragedModel(module, multi_avg_fn=function, use_buffers=True)
