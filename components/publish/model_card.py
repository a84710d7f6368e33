"""The model card: what a version is, how fast and how accurate it was measured, how to use it."""

from pathlib import Path

from components.core import formats
from components.core.contracts.job import Features, Fit, Job, Task
from components.core.contracts.leaderboard import Candidate, Leaderboard
from components.publish.records import VersionManifest
from components.publish.signature import Signature
from components.publish.triton import REPOSITORY

_TEMPLATE = Path(__file__).with_name("model_card.md.j2")


def model_card(job: Job, board: Leaderboard, manifest: VersionManifest, signature: Signature) -> str:
    """The card as Markdown; text from outside is escaped."""
    from jinja2 import Environment, StrictUndefined

    environment = Environment(undefined=StrictUndefined, trim_blocks=True, autoescape=False)  # noqa: S701  (Markdown)
    environment.filters |= {"md": formats.markdown, "code": _code}
    baseline = board.row(board.baseline)
    winner = board.row(board.winner or board.baseline)
    return environment.from_string(_TEMPLATE.read_text()).render(
        name=manifest.name,
        version=manifest.version,
        source=job.model.factory or Path(job.model.onnx or job.model.program or "").name,
        techniques=", ".join(manifest.techniques) or "nothing but another runtime",
        baseline_runtime=formats.runtime_name(baseline.runtime),
        measurements=_measurements(winner, baseline),
        why=board.why,
        task=str(manifest.task),
        runtime=formats.runtime_name(manifest.runtime),
        options=", ".join(f"{key}={value}" for key, value in sorted(manifest.options.items())),
        model=manifest.model,
        triton=manifest.model.startswith(f"{REPOSITORY}/"),
        inputs=signature.inputs,
        outputs=signature.outputs,
        encoding=_encoding(job),
        labels=", ".join(f"{number} {label}" for number, label in sorted(manifest.labels.items())),
        environment=board.environment | winner.versions,
    )


def _encoding(job: Job) -> str:
    """How a sample becomes the input; empty for detection, whose inputs are all made alike."""
    how, shape = job.preprocess, job.target.input_shape
    if job.task is Task.CLASSIFICATION:
        kept = f" ({how.crop_share:g} of the shorter side)" if how.fit is Fit.CROP else ""
        return (
            f"The input is RGB in 0..1 at {shape[3]} x {shape[2]} pixels, fitted by {how.fit}{kept}, minus "
            f"{list(how.mean)}, divided by {list(how.std)}."
        )
    if job.task is Task.TEXT:
        name = (how.tokenizer or "").rpartition("/")[2]
        return f"The inputs are made by the tokenizer {name}, cut or padded to {shape[1]} tokens."
    if job.task is Task.AUDIO and how.features is Features.WAVEFORM:
        return f"The input is one channel in -1..1 at {how.sample_rate} Hz, cut or padded to {shape[1]} samples."
    if job.task is Task.AUDIO:
        return (
            f"The input is the log-mel spectrogram of hasten (25 ms Hann windows every 10 ms, HTK mel filters) of one "
            f"channel at {how.sample_rate} Hz, cut or padded to {shape[2]} frames."
        )
    return ""


def _code(text: object) -> str:
    """For a code span: one line, in which no backtick ends it."""
    return formats.plain(text).replace("`", "'")


def _measurements(winner: Candidate, baseline: Candidate) -> list[tuple[str, str, str]]:
    rows = []
    for name in ("p50", "p90", "p99"):
        if winner.latency_ms and baseline.latency_ms:
            new, old = (getattr(latency, name) for latency in (winner.latency_ms, baseline.latency_ms))
            rows.append((f"latency {name}", formats.milliseconds(new), formats.milliseconds(old)))
    if winner.speedup:
        low, high = formats.times(winner.speedup.ci_low), formats.times(winner.speedup.ci_high)
        rows.append(("speed-up, p50", f"{formats.times(winner.speedup.ratio)} (95% CI {low} to {high})", ""))
    if winner.throughput and baseline.throughput:
        rows.append(("images", formats.per_second(winner.throughput), formats.per_second(baseline.throughput)))
    if winner.accuracy and baseline.accuracy:
        new, old = (formats.fraction(accuracy.value) for accuracy in (winner.accuracy, baseline.accuracy))
        rows.append((formats.metric_name(winner.accuracy.metric), new, old))
    if winner.size_bytes and baseline.size_bytes:
        rows.append(("size", formats.size(winner.size_bytes), formats.size(baseline.size_bytes)))
    return rows
