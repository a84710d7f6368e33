"""What training computes in, and on what: a Fabric with our autocast, on one process or on torchrun's."""

import os
from typing import TYPE_CHECKING, Any, Literal

import torch
from lightning_fabric import Fabric
from lightning_fabric.plugins import MixedPrecision
from lightning_fabric.strategies.ddp import DDPStrategy

from components.core.contracts.job import Precision
from components.core.errors import UserError

if TYPE_CHECKING:
    from collections.abc import Mapping

_NAMES: "Mapping[Precision, Literal['16-mixed', 'bf16-mixed']]" = {
    Precision.FP16: "16-mixed",
    Precision.BF16: "bf16-mixed",
}


class Autocast(MixedPrecision):
    """Autocast that leaves a batch as it is.

    Fabric's own rounds every float of a batch, and bfloat16 has 8 bits: boxes in pixels would move.
    """

    def convert_input(self, data: Any) -> Any:
        """The batch itself."""
        return data


def native_precision(device: str) -> Precision:
    """What `auto` means on a device: bfloat16, or FP16 with loss scaling on GPUs that have no bfloat16.

    A CPU never gets FP16: its FP16 convolutions are slower than FP32 by a factor, those in bfloat16 are not.
    """
    if device == "cuda" and not torch.cuda.is_bf16_supported(including_emulation=False):
        return Precision.FP16
    return Precision.BF16


def usable_device() -> str:
    """`cuda` where there is a GPU that torch can use, else `cpu`."""
    return "cuda" if torch.cuda.is_available() else "cpu"


def launch(precision: Precision, device: str) -> Fabric:
    """A launched Fabric: of the processes that torchrun started, if it did, else of this one alone.

    Args:
        precision: `auto` is resolved for the device.
        device: `cpu` or `cuda`.

    Raises:
        UserError: torchrun started more processes on this machine than it has GPUs.
    """
    here, everywhere = (int(os.environ.get(name, "1")) for name in ("LOCAL_WORLD_SIZE", "WORLD_SIZE"))
    if device == "cuda" and here > torch.cuda.device_count():
        raise UserError(
            f"training.processes: {here} processes, but {torch.cuda.device_count()} GPUs; one GPU a process is needed"
        )
    chosen = native_precision(device) if precision is Precision.AUTO else precision
    fabric = Fabric(
        accelerator=device,
        devices=here,
        num_nodes=everywhere // here,
        strategy=DDPStrategy() if everywhere > 1 else "auto",
        plugins=[] if chosen is Precision.FP32 else [_autocast(chosen, device)],
    )
    fabric.launch()
    return fabric


def _autocast(precision: Precision, device: str) -> Autocast:
    # Fabric itself would turn FP16 on a CPU into bfloat16, since it was written before torch could scale losses there.
    scaler = torch.amp.GradScaler(device) if precision is Precision.FP16 else None
    return Autocast(_NAMES[precision], device, scaler)


def precision_of(fabric: Fabric) -> Precision:
    """What a Fabric of `launch` computes in."""
    name = getattr(fabric.strategy.precision, "precision", "")
    return next((precision for precision, known in _NAMES.items() if known == name), Precision.FP32)


def scaler_of(fabric: Fabric) -> "torch.amp.GradScaler | None":
    """The loss scaler, if there is one."""
    return getattr(fabric.strategy.precision, "scaler", None)
