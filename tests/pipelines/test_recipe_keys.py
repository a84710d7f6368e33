"""What a budget changes: when the ladder stops, and no key under which a model is kept."""

import pytest
from tiny_job import make_tiny_job

from components.core.errors import UserError
from components.core.job_file import read_job
from pipelines.ladder.recipe import prepare_run


def test_a_budget_is_no_part_of_what_models_are_made_from(tmp_path):
    job = read_job(make_tiny_job(tmp_path / "job"))

    def prepared(**budget):
        changed = job.model_copy(update={"budget": job.budget.model_copy(update=budget)})
        return prepare_run(changed.model_dump_json(), "", "", "code", "run", "1000")

    free = prepared()
    limited = prepared(max_time=4 * 3600.0, max_core_time=8 * 3600.0, max_gpu_time=2 * 3600.0)
    assert limited.recipe == free.recipe
    assert limited.training == free.training
    assert limited.source_digest == free.source_digest
    assert '"max_core_time":"28800 s"' in limited.job
    assert free.started == "1000.000"
    assert prepared(calibration_images=9).recipe != free.recipe
    with pytest.raises(UserError, match="started: given 'noon', accepted: Unix time in seconds"):
        prepare_run(job.model_dump_json(), "", "", "code", "run", "noon")
