"""The ladder of many models on a cluster, as a discrete-event simulation (simpy).

A model's steps follow one another, each in a pod. A pod waits for a place (a GPU, or one of the CPU pods that run at a
time), starts (scheduling, image, KFP's driver: the place is taken meanwhile), works for the measured time and ends. A
spot GPU node may be taken away: the pod's work since its last checkpoint is lost, and the step is tried again as its
profile says. All chance comes from the seed, drawn per model, step and try: two simulations that differ in the number
of GPUs meet the same pod starts.
"""

import math
import random
from collections.abc import Generator, Sequence
from dataclasses import dataclass
from typing import Any

import simpy

from pipelines.simulation.measured import TRAINING, MeasuredRun, Work

BACKOFF, LONGEST_BACKOFF = 30.0, 600.0
"""Seconds, of `pipelines.scheduling.place`."""
_SPREAD = 0.5
"""Sigma of the logarithm of a pod's start: two of three start within 0.6 to 1.6 times the median."""


@dataclass(frozen=True)
class Cluster:
    """What models climb on."""

    gpus: int
    cpu_pods: int = 64
    """CPU pods at a time."""
    parallelism: int = 32
    """Models at a time, as of a fleet."""
    pod_start: float = 30.0
    """Median seconds from a place to the first line of a step's code."""
    preempt_every: float | None = None
    """Mean seconds until a spot GPU is taken away; None: never."""
    checkpoint_every: float = 300.0
    """Seconds between the checkpoints of a training step; other steps begin anew."""
    gpu_speed: float = 1.0
    """How much faster a step that gets a GPU runs there than where it was measured."""


@dataclass(frozen=True)
class Pod:
    """One try of a step. Times are seconds since the beginning."""

    model: int
    rung: str
    step: str
    on_gpu: bool
    asked: float
    began: float
    """When it got its place."""
    ended: float
    start: float
    """Seconds that its start took."""
    work: float
    """Seconds of work that counted."""
    lost: float
    """Seconds of work that a preemption undid."""
    preempted: bool

    @property
    def waited(self) -> float:
        """Seconds until it got its place."""
        return self.began - self.asked


@dataclass(frozen=True)
class Outcome:
    """How a simulation went."""

    cluster: Cluster
    pods: list[Pod]
    models: int
    met: int
    failed: int
    makespan: float
    """Seconds until the last model was done."""


def simulate(
    runs: Sequence[MeasuredRun],
    models: int,
    cluster: Cluster,
    *,
    exhaustive: bool,
    seed: int = 0,
    shares: dict[str, float] | None = None,
) -> Outcome:
    """Lets so many models climb.

    Args:
        runs: each model is one of them, drawn by chance.
        models: how many.
        cluster: what they climb on.
        exhaustive: whether they climb every rung, or stop where their goal is met.
        seed: of all chance.
        shares: rung -> share of the models that meet their goal there; default: each where its run did.
    """
    simulation = _Simulation(cluster, seed)
    met = 0
    for number in range(models):
        dice = random.Random(f"{seed}:{number}")  # noqa: S311
        run = dice.choice(runs)
        met_at = _drawn(dice.random(), run, shares) if shares is not None else run.met_at
        met += met_at is not None
        simulation.add(number, run.work(exhaustive, met_at), met_at is not None)
    return simulation.run(models, met)


def _drawn(number: float, run: MeasuredRun, shares: dict[str, float]) -> str | None:
    for rung in run.climbs:
        number -= shares.get(rung, 0.0)
        if number < 0:
            return rung
    return None


class _Simulation:
    def __init__(self, cluster: Cluster, seed: int) -> None:
        self.environment = simpy.Environment()
        self.cluster, self.seed = cluster, seed
        self.gpus = simpy.Resource(self.environment, cluster.gpus)
        self.cpus = simpy.Resource(self.environment, cluster.cpu_pods)
        self.places = simpy.Resource(self.environment, cluster.parallelism)
        self.pods: list[Pod] = []
        self.failed = 0
        self.lost_goals = 0

    def add(self, number: int, work: Sequence[Work], meets: bool) -> None:
        self.environment.process(self._model(number, work, meets))

    def run(self, models: int, met: int) -> Outcome:
        self.environment.run()
        return Outcome(self.cluster, self.pods, models, met - self.lost_goals, self.failed, float(self.environment.now))

    def _model(self, number: int, steps: Sequence[Work], meets: bool) -> Generator[simpy.Event, Any, None]:
        with self.places.request() as place:
            yield place
            for index, work in enumerate(steps):
                done = yield self.environment.process(self._step(number, index, work))
                if not done:
                    self.failed += 1
                    self.lost_goals += meets
                    return

    def _step(self, number: int, index: int, work: Work) -> Generator[simpy.Event, Any, bool]:
        """Tries a step as often as its profile allows; what it is worth is whether it was done."""
        left = work.seconds / (self.cluster.gpu_speed if work.on_gpu else 1.0)
        for attempt in range(work.profile.retries + 1):
            if attempt:
                yield self.environment.timeout(min(BACKOFF * 2 ** (attempt - 1), LONGEST_BACKOFF))
            dice = random.Random(f"{self.seed}:{number}:{index}:{attempt}")  # noqa: S311
            pod = yield self.environment.process(self._try(number, work, left, dice))
            left -= pod.work
            if not pod.preempted:
                return True
        return False

    def _try(self, number: int, work: Work, left: float, dice: random.Random) -> Generator[simpy.Event, Any, Pod]:
        start = dice.lognormvariate(math.log(self.cluster.pod_start), _SPREAD) if self.cluster.pod_start else 0.0
        taken_away = math.inf
        if work.on_gpu and self.cluster.preempt_every is not None:
            taken_away = dice.expovariate(1 / self.cluster.preempt_every)
        asked = float(self.environment.now)
        with (self.gpus if work.on_gpu else self.cpus).request() as place:
            yield place
            began = float(self.environment.now)
            length = min(start + left, taken_away)
            yield self.environment.timeout(length)
        preempted = length < start + left
        worked = max(length - start, 0.0)
        kept = worked
        if preempted:
            kept = (
                worked // self.cluster.checkpoint_every * self.cluster.checkpoint_every
                if work.step in TRAINING
                else 0.0
            )
        pod = Pod(
            model=number,
            rung=work.rung,
            step=work.step,
            on_gpu=work.on_gpu,
            asked=asked,
            began=began,
            ended=began + length,
            start=min(start, length),
            work=kept,
            lost=worked - kept,
            preempted=preempted,
        )
        self.pods.append(pod)
        return pod
