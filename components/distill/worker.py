"""A process that trains a student: ``torchrun ... -m components.distill.worker REQUEST.json``."""

import sys
from pathlib import Path

import torch

from components.distill.request import Request
from components.distill.training import train_student


def main(question: str) -> None:
    """Trains as the request says."""
    try:
        train_student(Request.model_validate_json(Path(question).read_text()))
    finally:
        if torch.distributed.is_available() and torch.distributed.is_initialized():
            torch.distributed.destroy_process_group()


if __name__ == "__main__":
    main(sys.argv[1])
