"""The model in the layout of NVIDIA Triton Inference Server: `<name>/config.pbtxt` and `<name>/1/<model>`."""

from typing import NamedTuple

from components.core.contracts.job import Runtime, Target
from components.publish.signature import Signature, Tensor

REPOSITORY = "model_repository"
FALLBACK = "fallback_repository"
"""The same model, by the same name, as ONNX: an engine runs only on the GPUs and the version that it was built for."""


class Backend(NamedTuple):
    """How Triton runs a kind of model."""

    setting: str
    """The line of config.pbtxt that chooses it."""
    stem: str = "model"
    suffix: str = ""
    """Suffix that the model file gets; empty: it keeps its own."""


BACKENDS = {
    Runtime.ONNXRUNTIME: Backend('backend: "onnxruntime"'),
    Runtime.OPENVINO: Backend('backend: "openvino"'),
    Runtime.TENSORRT: Backend('platform: "tensorrt_plan"', suffix=".plan"),
}
"""Runtimes that Triton has a backend for; TensorRT-RTX and eager PyTorch are not among them."""


def config_pbtxt(name: str, model_file: str, runtime: Runtime, signature: Signature, target: Target) -> str:
    """The configuration that makes Triton load the model; the same input gives the same text.

    Args:
        name: of the model, as in its folder and in a client's request.
        model_file: file name in the version folder `1/`.
        runtime: one of `BACKENDS`.
        signature: inputs and outputs. Batching is off: their shapes are whole.
        target: device and threads.
    """
    device = target.device.partition(":")
    kind = "KIND_CPU" if target.device == "cpu" else "KIND_GPU"
    gpus = f", gpus: [ {device[2]} ]" if device[2] else ""
    lines = [
        f'name: "{name}"',
        BACKENDS[runtime].setting,
        f'default_model_filename: "{model_file}"',
        "max_batch_size: 0",
        *_tensors("input", signature.inputs),
        *_tensors("output", signature.outputs),
        f"instance_group [ {{ kind: {kind}, count: 1{gpus} }} ]",
    ]
    if runtime is Runtime.ONNXRUNTIME and target.threads:
        lines += [
            "parameters {",
            '  key: "intra_op_thread_count"',
            f'  value: {{ string_value: "{target.threads}" }}',
            "}",
        ]
    return "\n".join(lines) + "\n"


def _tensors(field: str, tensors: tuple[Tensor, ...]) -> list[str]:
    lines = []
    for number, tensor in enumerate(tensors, start=1):
        shape = ", ".join(map(str, tensor.shape))
        end = "," if number < len(tensors) else ""
        lines.append(f'  {{ name: "{_escaped(tensor.name)}", data_type: TYPE_{tensor.kind}, dims: [ {shape} ] }}{end}')
    return [f"{field} [", *lines, "]"]


def _escaped(text: str) -> str:
    return text.replace("\\", "\\\\").replace('"', '\\"')
