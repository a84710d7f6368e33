"""PyTorch as the user runs it: eager, FP32, `inference_mode`."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy.typing as npt

from components.core.contracts.job import Job
from components.core.contracts.variant import Variant
from components.core.errors import StepError
from components.core.runtimes.interface import Batch
from components.core.tasks.detection import Detections, drop_padding, per_image

if TYPE_CHECKING:
    import torch


class TorchSession:
    """A torch module on one device.

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

        with torch.inference_mode():
            tensor = torch.from_numpy(batch).to(self._device)
            output = self._model(list(tensor) if self._takes_list else tensor)
        if _is_list_of_dicts(output, len(batch)):
            return [drop_padding(*_arrays(one)) for one in output]
        return per_image(len(batch), *_arrays(output))


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


def load(variant: Variant, folder: Path, job: Job | None, bundle: Path | None, threads: int) -> TorchSession:
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
    if variant.file and variant.file.endswith(".pt2"):
        return TorchSession(load_program(folder / variant.file), device, takes_list=False)
    if job is None or bundle is None:
        raise StepError(f"{variant.id} has no .pt2 file, and there is no job that names a model")
    model = load_torch_model(job.model, bundle / "model")
    return TorchSession(model, device, takes_list=job.model.program is None)
