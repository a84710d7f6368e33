"""PyTorch as the user runs it: eager, FP32, `inference_mode`."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy.typing as npt

from components.core.contracts.job import Job, Task
from components.core.contracts.variant import Variant
from components.core.errors import StepError
from components.core.feeds import Batch, feed, size_of
from components.core.runtimes.interface import Session, adapter_for
from components.core.tasks.adapter import TaskAdapter
from components.core.tasks.detection import Detections, drop_padding, per_image

if TYPE_CHECKING:
    import torch


class TorchSession:
    """A detector as a torch module on one device.

    Args:
        model: torchvision's convention (`takes_list`: a list of [3, H, W] images in, a list of dicts out), or a module
            that takes the batch and returns boxes, scores and labels; of more than one image, with a batch axis.
        device: torch device.
        takes_list: which of the two.
    """

    def __init__(self, model: "torch.nn.Module", device: str, *, takes_list: bool) -> None:
        self._model = model.to(device)
        self._device = device
        self._takes_list = takes_list

    def run(self, batch: Batch) -> list[Detections]:
        """See `Session.run`."""
        import torch

        image = next(iter(feed(batch, ["image"]).values()))
        with torch.inference_mode():
            tensor = torch.from_numpy(image).to(self._device)
            output = self._model(list(tensor) if self._takes_list else tensor)
        if _is_list_of_dicts(output, len(image)):
            return [drop_padding(*_arrays(one)) for one in output]
        return per_image(len(image), *_arrays(output))


class TorchLogitsSession:
    """A classifier as a torch module on one device."""

    def __init__(self, model: "torch.nn.Module", device: str, adapter: TaskAdapter) -> None:
        from components.core.tasks.torch_calls import inputs_taken

        self._model = model.to(device)
        self._device = device
        self._adapter = adapter
        self._taken = inputs_taken(model, adapter.inputs)

    def run(self, batch: Batch) -> list[Any]:
        """See `Session.run`."""
        import torch

        from components.core.tasks.torch_calls import call

        with torch.inference_mode():
            arrays = feed(batch, self._taken)
            tensors = {name: torch.from_numpy(values).to(self._device) for name, values in arrays.items()}
            logits = call(self._model, tensors, self._taken).cpu().numpy()
        return self._adapter.predictions(size_of(batch), [logits])


def _is_list_of_dicts(output: Any, count: int) -> bool:
    """Whether it is torchvision's answer for so many images."""
    return isinstance(output, list | tuple) and len(output) == count and all(isinstance(one, dict) for one in output)


def _arrays(output: Any) -> "list[npt.NDArray[Any]]":
    return [part.cpu().numpy() for part in _boxes_scores_labels(output)]


def _boxes_scores_labels(output: Any) -> "tuple[torch.Tensor, torch.Tensor, torch.Tensor]":
    """The three tensors in what a detector returned: a dict, or the three themselves, alone or in a list of one."""
    if isinstance(output, list | tuple) and len(output) == 1:
        output = output[0]
    if isinstance(output, dict):
        missing = {"boxes", "scores", "labels"} - output.keys()
        if missing:
            raise StepError(
                f"the model's output lacks {', '.join(sorted(missing))}; it has {', '.join(map(str, output))}"
            )
        return output["boxes"], output["scores"], output["labels"]
    if isinstance(output, list | tuple) and len(output) == 3:
        boxes, scores, labels = output
        return boxes, scores, labels
    raise StepError(
        f"the model returned {type(output).__name__}; expected torchvision's list of dicts with boxes, scores and "
        "labels, or the three tensors in this order"
    )


def load(variant: Variant, folder: Path, job: Job | None, bundle: Path | None, threads: int) -> Session:
    """See `load_session`. Without a file of its own, a variant is the job's model itself.

    Raises:
        StepError: there is no torch model to load.
        UserError: the job's model cannot be built.
    """
    import torch

    from components.core.models import load_torch_model
    from components.core.programs import load_program

    torch.set_num_threads(threads)
    device = job.target.device if job else "cpu"
    if job is not None and job.task is not Task.DETECTION:
        if bundle is None:
            raise StepError(f"{variant.id}: there is no bundle to take the model from")
        return TorchLogitsSession(load_torch_model(job.model, bundle / "model"), device, adapter_for(job, bundle))
    if variant.file and variant.file.endswith(".pt2"):
        return TorchSession(load_program(folder / variant.file), device, takes_list=False)
    if job is None or bundle is None:
        raise StepError(f"{variant.id} has no .pt2 file, and there is no job that names a model")
    model = load_torch_model(job.model, bundle / "model")
    return TorchSession(model, device, takes_list=job.model.program is None)
