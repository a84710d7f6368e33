import multiprocessing
from pathlib import Path

import pytest

from components.core.errors import UserError
from pipelines.local.record import RunRecord, Stage, last_record, locked, next_record


def test_an_unfinished_run_keeps_its_id(tmp_path):
    first = next_record(tmp_path)
    first.write(tmp_path)
    for stage in (Stage.RUNNING, Stage.STOPPED, Stage.FAILED):
        RunRecord(run_id=first.run_id, stage=stage).write(tmp_path)
        assert next_record(tmp_path).run_id == first.run_id
    RunRecord(run_id=first.run_id, stage=Stage.FINISHED).write(tmp_path)
    assert next_record(tmp_path).run_id != first.run_id
    assert next_record(tmp_path, resume=True).run_id == first.run_id


@pytest.mark.parametrize("content", ["", "{", "[]", '{"stage": "elsewhere"}'])
def test_a_damaged_record_starts_anew(tmp_path, content):
    (tmp_path / "run.json").write_text(content)
    assert last_record(tmp_path) is None
    assert next_record(tmp_path).starts == 1


def hold(folder: Path, ready, release) -> None:
    with locked(folder):
        ready.set()
        release.wait(30)


def test_two_runs_never_share_a_folder(tmp_path):
    context = multiprocessing.get_context("spawn")
    ready, release = context.Event(), context.Event()
    other = context.Process(target=hold, args=(tmp_path, ready, release))
    other.start()
    assert ready.wait(30)
    with pytest.raises(UserError, match=f"another run \\(process {other.pid}\\)"), locked(tmp_path):
        pass
    other.kill()
    other.join()
    with locked(tmp_path):  # a killed run holds nothing back
        pass
