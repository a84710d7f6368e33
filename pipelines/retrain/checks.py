"""What a job needs so that its model can be trained again on a schedule."""

from components.core.contracts.job import Job, Task
from components.core.errors import UserError


def check_retraining(job: Job) -> None:
    """Refuses a job that cannot be retrained, before any work.

    Raises:
        UserError: one line a problem.
    """
    problems = []
    if job.retrain is None:
        problems.append("retrain: the job has no such section; add `retrain: {}` to take the usual limits")
    if job.publish is None:
        problems.append("publish: the job names no place, so that there is no champion to train again; give publish.to")
    if job.task is not Task.DETECTION:
        problems.append(f"task: given {job.task}, accepted for retraining: {Task.DETECTION}")
    if not job.model.factory:
        problems.append(
            "model: a .pt2 or .onnx file holds a model for inference alone; give model.factory with model.weights to "
            "train it again"
        )
    if problems:
        raise UserError("\n".join(problems))
