"""hasten inside a pipeline of your own: two ways, and what each hands back.

    python pipelines/examples/own_pipeline.py      # writes own_pipeline.yaml, to upload to Kubeflow Pipelines

Nested pipelines are tasks like any other: give them texts and URIs, use their outputs, put conditions around them.
"""

from kfp import compiler, dsl

from components.benchmark.component import benchmark
from components.export.component import export
from components.fetch.component import fetch
from components.leaderboard.component import leaderboard
from pipelines.compress.pipeline import compress
from pipelines.ladder.pipeline import ladder
from pipelines.ladder.prepare import prepare


@dsl.component(base_image="python:3.11", install_kfp_package=False)  # type: ignore[untyped-decorator]
def announce(board: str) -> str:
    """A step of yours. The board is JSON: every candidate with its numbers, the winner and why.

    Args:
        board: the final Leaderboard.

    Returns:
        What to tell people.
    """
    import json

    found = json.loads(board)
    rows = {row["id"]: row for row in found["candidates"]}
    winner = rows.get(found["winner"], {})
    return f"{found['job']}: {winner.get('id', 'nothing')} ({found['why']})"


@dsl.pipeline(name="whole-ladder")  # type: ignore[untyped-decorator]
def whole_ladder(job: str) -> str:
    """The ladder as one task: it climbs, stops, reports and publishes by itself.

    Args:
        job: the Job as YAML or JSON text; the step that trains your model can write it.

    Returns:
        What to tell people.
    """
    fast = ladder(job=job)
    return announce(board=fast.outputs["board"]).output  # type: ignore[no-any-return]


@dsl.pipeline(name="own-pipeline")  # type: ignore[untyped-decorator]
def own_pipeline(job: str, technique: str = "int8") -> str:
    """One technique on one model, in an order of your own: no ladder.

    Args:
        job: the Job as YAML or JSON text.
        technique: `int8`, `fp16`, or anything else for graph surgery alone.

    Returns:
        What to tell people.
    """
    ready = prepare(job=job)
    ready.set_caching_options(enable_caching=False)  # the files behind a job can change while its text does not
    facts = ready.outputs
    code_version, run_id = facts["code_version"], facts["run_id"]
    bundle = fetch(job=facts["recipe"], source_digest=facts["source_digest"], code_version=code_version)
    # The model as it is: what every speed-up is over.
    exported = export(job=facts["recipe"], bundle_uri=bundle.outputs["Output"], code_version=code_version)
    baseline = benchmark(
        job=facts["job"],
        bundle_uri=bundle.outputs["Output"],
        exported_uri=exported.outputs["Output"],
        models_uri="",
        rung="baseline",
        board="",
        code_version=code_version,
        run_id=run_id,
    )
    compressed = compress(
        job=facts["job"],
        recipe=facts["recipe"],
        bundle_uri=bundle.outputs["Output"],
        baseline_uri=exported.outputs["Output"],
        baseline_bundle_uri=bundle.outputs["Output"],
        technique=technique,
        rung=technique,
        board=baseline.outputs["Output"],
        code_version=code_version,
        run_id=run_id,
    )
    final = leaderboard(board=compressed.output, job=facts["job"], code_version=code_version)
    return announce(board=final.outputs["Output"]).output  # type: ignore[no-any-return]


if __name__ == "__main__":
    compiler.Compiler().compile(own_pipeline, "own_pipeline.yaml")
