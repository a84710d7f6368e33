"""The process that runs a pipeline with kfp.local: ``python -m pipelines.local.child REQUEST.json``.

A process of its own, because KFP prints a lot and keeps global state; `pipelines.local.run` starts it, reads its events
and keeps its output as the run's log.
"""

import importlib
import sys
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from components.core.stepping import announce, die_with_the_run


class Request(BaseModel):
    """What to run and where."""

    pipeline: str
    """Folder of `pipelines` that it is in, and its name."""
    arguments: dict[str, Any]
    cache: Path
    fresh: bool = False
    outputs: Path


def main(request_file: str) -> None:
    """Runs the pipeline; writes its outputs as JSON when all of it succeeded."""
    die_with_the_run()
    request = Request.model_validate_json(Path(request_file).read_text())
    from kfp import local

    from components.core.storage import write_json_atomic
    from pipelines.local import cache

    cache.install()
    local.init(
        runner=local.SubprocessRunner(use_venv=False),
        pipeline_root=str(request.cache / "outputs"),
        enable_caching=not request.fresh,
        cache_root=str(request.cache / "keys"),
    )
    module = importlib.import_module(f"pipelines.{request.pipeline}.pipeline")
    pipeline = getattr(module, request.pipeline)
    drop_retries(pipeline.pipeline_spec)
    task = pipeline(**request.arguments)
    write_json_atomic(request.outputs, {name: task.outputs[name] for name in module.Result._fields})
    announce("finished")


def drop_retries(spec: Any) -> None:
    """Takes the retries out of a pipeline, in place: here no node is lost, and a failure would only be told later.

    Args:
        spec: `PipelineSpec` of KFP; kfp.local waits between tries as a cluster does.
    """
    for dag in (spec.root.dag, *(component.dag for component in spec.components.values())):
        for task in dag.tasks.values():
            task.ClearField("retry_policy")


if __name__ == "__main__":
    main(sys.argv[1])
