"""The KFP definition of the step `report`."""

from kfp import dsl

from components.core.images import LIGHT_IMAGE


@dsl.component(base_image=LIGHT_IMAGE, install_kfp_package=False)  # type: ignore[untyped-decorator]
def report(
    job: str,
    board: str,
    bundle_uri: str,
    command: str,
    folder: dsl.Output[dsl.Artifact],
    page: dsl.Output[dsl.HTML],
    summary: dsl.Output[dsl.Markdown],
    code_version: str = "",  # noqa: ARG001
) -> str:
    """Writes `leaderboard.json`, `report.md` and `report.html`.

    Args:
        job: the Job, as JSON.
        board: the final Leaderboard, as JSON.
        bundle_uri: output folder of `fetch`, for the test images.
        command: what to type to get this report again.
        folder: the three files.
        page: `report.html` once more, which the Kubeflow UI shows beside the run.
        summary: `report.md` once more, likewise.
        code_version: version of the code, so that a cached report of older code is not reused.

    Returns:
        The URI of the folder.
    """
    import shutil
    from pathlib import Path

    from components.core.contracts.job import Job
    from components.core.contracts.leaderboard import Leaderboard
    from components.core.stepping import step
    from components.core.storage import materialize
    from components.report.run import HTML, MARKDOWN, run_report

    with step("report"):
        out = Path(folder.path)
        final = Leaderboard.model_validate_json(board)
        run_report(Job.model_validate_json(job), final, materialize(bundle_uri), out, command)
        shutil.copyfile(out / HTML, page.path)
        shutil.copyfile(out / MARKDOWN, summary.path)
    return str(folder.uri)
