"""A training process: ``torchrun ... -m components.core.training.worker REQUEST.json``, on one or several machines."""

import sys
from pathlib import Path

import torch

from components.core.training.processes import run_training
from components.core.training.request import Request


def main(question: str) -> None:
    """Trains as the request says."""
    try:
        run_training(Request.model_validate_json(Path(question).read_text()))
    finally:
        if torch.distributed.is_available() and torch.distributed.is_initialized():
            torch.distributed.destroy_process_group()


if __name__ == "__main__":
    main(sys.argv[1])
