"""What is told of a version outside: where it comes from, how it was made, what was measured; flat names and values."""

from components.core.contracts.job import Runtime
from components.core.contracts.leaderboard import Candidate
from components.publish.published import Published

Value = str | float | int | bool
_PACKAGES = {
    Runtime.ONNXRUNTIME: ("onnxruntime", "onnxruntime-gpu"),
    Runtime.OPENVINO: ("openvino",),
    Runtime.TENSORRT: ("tensorrt",),
    Runtime.TENSORRT_RTX: ("tensorrt-rtx-cu13", "tensorrt_rtx"),
    Runtime.TORCH: ("torch",),
}
"""Names under which a runtime's version is known."""


def facts_of(published: Published) -> dict[str, Value]:
    """Provenance, techniques, runtime, versions, accuracy and latency; what is not known is left out."""
    manifest, provenance, board = published.manifest, published.provenance, published.board
    known: dict[str, Value] = {
        "version": manifest.version,
        "content_sha256": manifest.content_sha256,
        "task": str(manifest.task),
        "runtime": str(manifest.runtime),
        "techniques": ",".join(manifest.techniques),
        "report_uri": published.report_uri,
        **provenance.model_dump(),
    }
    if board is not None and board.winner is not None:
        winner = board.row(board.winner)
        environment = board.environment | winner.versions
        known["gpu"] = environment.get("gpu", "")
        names = _PACKAGES[manifest.runtime]
        known["runtime_version"] = next((environment[name] for name in names if name in environment), "")
        known |= _engine(winner) | measured(winner)
        known |= {f"baseline_{name}": value for name, value in measured(board.row(board.baseline)).items()}
    return {name: value for name, value in known.items() if value != ""}


def measured(row: Candidate) -> dict[str, Value]:
    """A row's numbers: milliseconds, bytes, images a second, accuracy 0..1."""
    found: dict[str, Value | None] = {
        "latency_p50_ms": row.latency_ms.p50 if row.latency_ms else None,
        "latency_p90_ms": row.latency_ms.p90 if row.latency_ms else None,
        "latency_p99_ms": row.latency_ms.p99 if row.latency_ms else None,
        "speedup": row.speedup.ratio if row.speedup else None,
        "speedup_ci_low": row.speedup.ci_low if row.speedup else None,
        "speedup_ci_high": row.speedup.ci_high if row.speedup else None,
        "throughput_per_s": row.throughput,
        "accuracy": row.accuracy.value if row.accuracy else None,
        "accuracy_drop": row.accuracy.drop if row.accuracy else None,
        "accuracy_metric": str(row.accuracy.metric) if row.accuracy else None,
        "size_bytes": row.size_bytes,
        "peak_rss_bytes": row.peak_rss_bytes,
    }
    return {name: value for name, value in found.items() if value is not None}


def _engine(winner: Candidate) -> dict[str, Value]:
    """What the engine was built by and for; nothing for a model that is no engine."""
    card = winner.details.get("engine")
    if not isinstance(card, dict):
        return {}
    built_for = card.get("compute_capabilities")
    return {
        "tensorrt_version": str(card.get("version", "")),
        "engine_built_by": str(card.get("module", "")),
        "engine_built_for": ",".join(map(str, built_for)) if isinstance(built_for, list) else "",
        "engine_onnx_sha256": str(card.get("onnx_sha256", "")),
    }
