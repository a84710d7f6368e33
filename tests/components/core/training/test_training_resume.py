"""Killed with SIGKILL at any step, and while a checkpoint is written, training ends with the very same weights."""

import os
import random
import re
import subprocess
import sys
from pathlib import Path

import pytest
from lives import BATCH, COUNT, EPOCHS

HERE = Path(__file__).parent
ROOT = HERE.parents[3]
STEPS = EPOCHS * -(-COUNT // BATCH)


@pytest.mark.parametrize("precision", ["fp32", "bf16", "fp16"])
def test_killed_and_resumed_it_ends_with_the_same_weights_to_the_bit(tmp_path, precision):
    first, second, third = random.randint(2, 6), random.randint(1, 5), random.randint(1, 5)
    deaths = f"{first},save2,{second},{third}"
    done = subprocess.run(
        [sys.executable, HERE / "lives.py", tmp_path, precision, deaths],
        env={**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("killed by 9") == 4, done.stdout
    # Each life went on where the checkpoint of the last whole step was.
    expected = [first - 1]
    expected.append(expected[-1] + 1)  # its second checkpoint was never whole
    expected.append(expected[-1] + second - 1)
    expected.append(expected[-1] + third - 1)
    resumed = re.search(r"^none resumed at (.*)$", done.stdout, re.MULTILINE)
    assert resumed is not None
    assert [int(step) for step in resumed[1].split()] == list(dict.fromkeys(expected)), deaths
    assert expected[-1] < STEPS
    whole, killed = (tmp_path / f"{precision}-{name}.safetensors" for name in ("whole", "killed"))
    assert whole.read_bytes() == killed.read_bytes(), deaths
