from types import SimpleNamespace

import report_boards as boards

from components.leaderboard.finish import finish
from components.report.component import report


def test_the_step_writes_the_folder_and_the_page_for_the_kubeflow_ui(tmp_path):
    bundle = boards.make_bundle(tmp_path / "bundle")
    board = finish(boards.board(boards.with_detections(boards.rows(), tmp_path / "d", bundle)), boards.job())
    folder = SimpleNamespace(path=str(tmp_path / "report"), uri="s3://runs/report")
    page = SimpleNamespace(path=str(tmp_path / "page.html"))
    summary = SimpleNamespace(path=str(tmp_path / "summary.md"))
    uri = report.python_func(
        job=boards.job().model_dump_json(),
        board=board.model_dump_json(),
        bundle_uri=str(bundle),
        command=boards.COMMAND,
        folder=folder,
        page=page,
        summary=summary,
    )
    assert uri == "s3://runs/report"
    written = sorted(path.name for path in (tmp_path / "report").iterdir())
    assert written == ["leaderboard.json", "report.html", "report.md"]
    assert (tmp_path / "page.html").read_bytes() == (tmp_path / "report/report.html").read_bytes()
    assert (tmp_path / "summary.md").read_bytes() == (tmp_path / "report/report.md").read_bytes()
