"""A training process: ``torchrun ... -m components.amp.worker REQUEST.json``, on one machine or on several."""

import sys
from pathlib import Path

import torch

from components.amp.request import Request
from components.amp.training import run_training


def main(question: str) -> None:
    """Trains as the request says."""
    try:
        run_training(Request.model_validate_json(Path(question).read_text()))
    finally:
        if torch.distributed.is_available() and torch.distributed.is_initialized():
            torch.distributed.destroy_process_group()


if __name__ == "__main__":
    main(sys.argv[1])
