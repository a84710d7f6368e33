"""Compiles the pipelines to IR YAML that is the same for the same code."""

from pathlib import Path

PIPELINES = ("compress", "ladder")


def compile_pipelines(out: Path) -> list[Path]:
    """Writes `<pipeline>.yaml` for each of `PIPELINES` into `out`; returns the paths."""
    from kfp import compiler

    from pipelines.compress.pipeline import compress
    from pipelines.ladder.pipeline import ladder

    out.mkdir(parents=True, exist_ok=True)
    paths = []
    for name, pipeline in zip(PIPELINES, (compress, ladder), strict=True):
        path = out / f"{name}.yaml"
        compiler.Compiler().compile(pipeline, str(path))
        paths.append(path)
    return paths
