"""What a simulation says: GPU-hours by what they went to, and where pods wait."""

from collections import defaultdict
from collections.abc import Iterable

from components.core.contracts.base import Contract
from pipelines.simulation.cluster import Outcome, Pod

HOUR = 3600.0


class Queue(Contract):
    """How the pods of one step waited for their place."""

    rung: str
    step: str
    on_gpu: bool
    pods: int
    mean_wait_s: float
    p95_wait_s: float
    wait_h: float
    share: float
    """Of all waiting, 0..1."""


class Summary(Contract):
    """One simulation."""

    mode: str
    models: int
    met: int
    failed: int
    makespan_h: float
    gpu_hours: float
    """Reserved: the sum of the next three."""
    gpu_work_h: float
    gpu_start_h: float
    gpu_lost_h: float
    cpu_pod_hours: float
    utilization: float
    """Reserved share of all GPU time until the last model was done, 0..1."""
    preemptions: int
    mean_gpu_wait_s: float
    longest_gpu_queue: int
    queues: list[Queue]
    """The steps that wait longest first."""


def summarize(outcome: Outcome, mode: str) -> Summary:
    """The numbers of an outcome."""
    on_gpu = [pod for pod in outcome.pods if pod.on_gpu]
    reserved = sum(pod.ended - pod.began for pod in on_gpu)
    available = outcome.cluster.gpus * outcome.makespan
    return Summary(
        mode=mode,
        models=outcome.models,
        met=outcome.met,
        failed=outcome.failed,
        makespan_h=outcome.makespan / HOUR,
        gpu_hours=reserved / HOUR,
        gpu_work_h=sum(pod.work for pod in on_gpu) / HOUR,
        gpu_start_h=sum(pod.start for pod in on_gpu) / HOUR,
        gpu_lost_h=sum(pod.lost for pod in on_gpu) / HOUR,
        cpu_pod_hours=sum(pod.ended - pod.began for pod in outcome.pods if not pod.on_gpu) / HOUR,
        utilization=reserved / available if available else 0.0,
        preemptions=sum(pod.preempted for pod in on_gpu),
        mean_gpu_wait_s=sum(pod.waited for pod in on_gpu) / len(on_gpu) if on_gpu else 0.0,
        longest_gpu_queue=longest_queue(on_gpu),
        queues=_queues(outcome.pods),
    )


def longest_queue(pods: Iterable[Pod]) -> int:
    """The most pods that waited at one time."""
    changes = [(pod.asked, 1) for pod in pods if pod.waited > 0] + [(pod.began, -1) for pod in pods if pod.waited > 0]
    longest = waiting = 0
    for _, change in sorted(changes):
        waiting += change
        longest = max(longest, waiting)
    return longest


def _queues(pods: list[Pod]) -> list[Queue]:
    waits: dict[tuple[str, str, bool], list[float]] = defaultdict(list)
    for pod in pods:
        waits[pod.rung, pod.step, pod.on_gpu].append(pod.waited)
    total = sum(pod.waited for pod in pods)
    queues = [
        Queue(
            rung=rung,
            step=step,
            on_gpu=on_gpu,
            pods=len(each),
            mean_wait_s=sum(each) / len(each),
            p95_wait_s=sorted(each)[min(int(0.95 * len(each)), len(each) - 1)],
            wait_h=sum(each) / HOUR,
            share=sum(each) / total if total else 0.0,
        )
        for (rung, step, on_gpu), each in waits.items()
    ]
    return sorted(queues, key=lambda queue: (-queue.wait_h, queue.rung, queue.step))
