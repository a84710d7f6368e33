import json
from pathlib import Path

from safetensors import safe_open

from components.core.files import sha256_file
from components.core.job_file import read_job
from components.core.models import load_torch_model

EXAMPLES = Path(__file__).parents[3] / "pipelines" / "examples"
CHECKPOINT = EXAMPLES / "trees" / "faster_rcnn_mobilenet_v2.safetensors"


def test_the_checkpoint_is_the_one_its_provenance_describes():
    provenance = json.loads(CHECKPOINT.with_suffix(".json").read_text())
    assert provenance["sha256"] == sha256_file(CHECKPOINT)
    assert provenance["accuracy_on_test"]["map50"] >= 0.35
    assert CHECKPOINT.stat().st_size <= 16e6


def test_the_job_loads_it():
    job = read_job(EXAMPLES / "trees.yaml")
    assert Path(job.model.weights) == CHECKPOINT
    model = load_torch_model(job.model, CHECKPOINT.parent)
    with safe_open(CHECKPOINT, "pt") as stored:
        assert set(stored.keys()) == set(model.state_dict())
