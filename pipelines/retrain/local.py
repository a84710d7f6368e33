"""`hasten retrain`: a retraining on this machine."""

from dataclasses import dataclass
from pathlib import Path

from components.core.contracts.champion import Outcome, Verdict
from components.core.contracts.job import Job
from components.core.storage import write_bytes_atomic
from pipelines.local.record import RunRecord
from pipelines.local.run import EXIT_MET, EXIT_NOT_MET, RESULTS, Dag, Options, View, run_dag, take_files
from pipelines.local.state import planned_retraining

OUTCOME = "retrain.json"
CARD = ("data_card.json", "data_card.md")


@dataclass(frozen=True)
class Retrained:
    """How a retraining ended."""

    outcome: Outcome
    record: RunRecord

    @property
    def exit_code(self) -> int:
        """0 if the champion was replaced, else 3: both ended well."""
        return EXIT_MET if self.outcome.verdict is Verdict.PROMOTE else EXIT_NOT_MET


def run_retraining(job: Job, options: Options, view: View) -> Retrained:
    """Retrains on this machine; puts retrain.json, the data's card and the ladder's results into `options.out`.

    Raises:
        Exception: see `pipelines.local.run.run_dag`.
    """
    return run_dag(Dag("retrain", planned_retraining(), {}, _take), job, options, view)


def _take(outputs: dict[str, str], out: Path, record: RunRecord) -> Retrained:
    outcome = Outcome.model_validate_json(outputs["outcome"])
    for name in RESULTS:  # of a run before, which this one is not about
        (out / name).unlink(missing_ok=True)
    take_files(Path(outputs["card_uri"]), CARD, out)
    if outcome.report_uri:
        take_files(Path(outcome.report_uri), RESULTS, out)
    write_bytes_atomic(out / OUTCOME, outcome.model_dump_json(indent=2).encode())
    return Retrained(outcome, record)
