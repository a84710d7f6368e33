"""Two processes of torchrun, gradients exchanged by gloo, against one process on the joined batches."""

import os
import subprocess
import sys
from pathlib import Path

import torch
from safetensors.torch import load_file

HERE = Path(__file__).parent
ROOT = HERE.parents[3]
TORCHRUN = ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2")


def pair(folder: Path, *launcher: str) -> "subprocess.Popen[str]":
    folder.mkdir()
    return subprocess.Popen(
        [sys.executable, *launcher, str(HERE / "pair.py"), str(folder)],
        env={**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def test_two_processes_take_the_same_steps_as_one(tmp_path):
    folders = [tmp_path / "one", tmp_path / "two"]
    runs = [pair(folders[0]), pair(folders[1], *TORCHRUN)]
    outputs = [run.communicate(timeout=300)[0] for run in runs]
    assert [run.returncode for run in runs] == [0, 0], outputs
    assert [(folder / "processes.txt").read_text() for folder in folders] == ["1", "2"]
    for name in ("gradients", "weights"):
        one, two = (load_file(folder / f"{name}.safetensors") for folder in folders)
        assert one.keys() == two.keys()
        assert len(one) > 3
        for key in one:
            torch.testing.assert_close(one[key], two[key], rtol=1e-4, atol=1e-6)
    moved = load_file(folders[0] / "gradients.safetensors")
    assert any(float(gradient.abs().max()) > 1e-3 for gradient in moved.values())
