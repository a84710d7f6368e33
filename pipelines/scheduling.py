"""Where a step runs on a cluster: what it asks for, how long it may take, how often it is tried, and on which GPU.

A profile is fixed when a pipeline is compiled. The GPU is chosen per run (`Gpu`): KFP fills in its resource name,
count, node selector, tolerations and image from the pipeline's parameters. The local runner ignores all of it.
"""

from dataclasses import dataclass, replace
from typing import Any, NamedTuple

from kfp import kubernetes
from kfp.dsl import PipelineTask

from components.core.images import TORCH_IMAGE

USER = 10001
"""User and group of the images; Pod Security "restricted" wants a number that is not 0."""
GPU_RESOURCE = "nvidia.com/gpu"
SHARED_GPUS = ("mps", "time-slicing")
"""Values of ``nvidia.com/gpu.sharing-strategy`` (NVIDIA's GPU feature discovery) of GPUs that pods share."""


class Gpu(NamedTuple):
    """The GPU of a run; each field is a value or a pipeline parameter."""

    count: Any = "0"
    """How many; "0": the step runs without one."""
    resource: Any = GPU_RESOURCE
    """Kubernetes' name of the resource; a MIG slice has one of its own, such as ``nvidia.com/mig-1g.10gb``."""
    node_selector: Any = None
    """Labels of the nodes to run on, such as ``{"nvidia.com/gpu.product": "NVIDIA-L4"}``: the *deployment* GPU."""
    tolerations: Any = None
    """Further taints of these nodes, as a list of Kubernetes tolerations; that of GPU nodes is tolerated anyway."""
    image: Any = TORCH_IMAGE
    """Image of the steps that use the GPU; the `tensorrt` image for the runtime ``tensorrt``."""


@dataclass(frozen=True)
class Profile:
    """What a kind of step needs."""

    cpus: str
    memory: str
    memory_limit: str
    timeout: int
    """Seconds until the pod is stopped."""
    retries: int
    """Further tries, after 30 s, 1 min, 2 min ...; for what the cluster does to a pod, not for a user's mistake."""
    shared_memory: str = ""
    """Size of /dev/shm, which data loaders of several processes use; empty: the container runtime's 64 MiB."""
    exclusive_gpu: bool = False
    """Whether the GPU must not be one that pods share: what is timed on it would mean nothing."""


LIGHT = Profile(cpus="250m", memory="512Mi", memory_limit="2Gi", timeout=1800, retries=2)
"""Contracts, storage, reports."""
CPU = Profile(cpus="2", memory="4Gi", memory_limit="12Gi", timeout=7200, retries=2)
"""Export, surgery, quantization: no GPU."""
GPU_TRAIN = Profile(cpus="4", memory="16Gi", memory_limit="32Gi", timeout=86400, retries=3, shared_memory="8Gi")
"""Training; resumes from its last checkpoint when it is tried again."""
GPU_SEARCH = replace(GPU_TRAIN, exclusive_gpu=True)
"""Training after a latency probe, whose timings mean nothing on a GPU that pods share."""
GPU_INFER = Profile(
    cpus="2", memory="8Gi", memory_limit="16Gi", timeout=14400, retries=1, shared_memory="1Gi", exclusive_gpu=True
)
"""Engine builds and benchmarks, on the GPU that the model will be deployed on."""


def place(task: PipelineTask, profile: Profile, gpu: Gpu | None = None) -> PipelineTask:
    """Writes a profile, and where given the run's GPU, into a task; returns the task.

    Priority classes are not among what KFP lets a pipeline say: give one to the namespace's pods by a policy, or use
    the workflows for plain Argo.
    """
    task.set_cpu_request(profile.cpus).set_memory_request(profile.memory).set_memory_limit(profile.memory_limit)
    task.set_retry(profile.retries, backoff_duration="30s", backoff_factor=2, backoff_max_duration="10m")
    kubernetes.set_timeout(task, profile.timeout)
    kubernetes.set_security_context(task, run_as_user=USER, run_as_group=USER, run_as_non_root=True)
    kubernetes.add_pod_label(task, "app.kubernetes.io/part-of", "hasten")
    if profile.shared_memory:
        kubernetes.empty_dir_mount(task, "shm", "/dev/shm", medium="Memory", size_limit=profile.shared_memory)  # noqa: S108
    if gpu is None:
        return task
    task.set_accelerator_type(gpu.resource).set_accelerator_limit(gpu.count)
    task.set_container_image(gpu.image)
    kubernetes.add_node_selector_json(task, gpu.node_selector if gpu.node_selector is not None else {})
    # GPU nodes are usually tainted so that nothing else lands on them.
    kubernetes.add_toleration(task, key=GPU_RESOURCE, operator="Exists", effect="NoSchedule")
    kubernetes.add_toleration_json(task, gpu.tolerations if gpu.tolerations is not None else [])
    if profile.exclusive_gpu:
        shared = {"key": "nvidia.com/gpu.sharing-strategy", "operator": "NotIn", "values": list(SHARED_GPUS)}
        kubernetes.add_node_affinity(task, match_expressions=[shared])
    return task
