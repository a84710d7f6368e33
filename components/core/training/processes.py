"""One training as a rung runs it: in this process, or in each of several that torchrun started."""

from typing import Any

from components.core.models import load_torch_model
from components.core.training.bundle import WEIGHTS, write_weights
from components.core.training.checkpoints import Checkpoints
from components.core.training.launcher import train_in_processes
from components.core.training.loop import Trained, train
from components.core.training.outcome import read_outcome, write_outcome
from components.core.training.request import Request
from components.core.training.task import training_task

WORKER = "components.core.training.worker"


def run_training(request: Request) -> Trained:
    """Trains the job's model; the first process writes the weights and `trained.json` into `request.out`."""
    job = request.job
    task = training_task(job, request.bundle)
    module = load_torch_model(job.model, request.bundle / "model")
    settings = job.training.model_copy(update={"precision": request.precision})
    checkpoints = Checkpoints(request.checkpoint_uri, request.identity) if request.checkpoint_uri else None
    done = train(
        module,
        task.loss,
        task.loader,
        settings,
        seed=job.budget.seed,
        checkpoints=checkpoints,
        device=request.device,
        max_steps=request.steps,
    )
    if done.first and request.out is not None:
        write_weights(module, request.out / WEIGHTS)
        write_outcome(done, request.out)
    return done


def run_trainings(request: Request, processes: int) -> dict[str, Any]:
    """Trains in that many processes on this machine; returns what `trained.json` says.

    Raises:
        StoppedError: SIGINT or SIGTERM came; a checkpoint was written.
        DivergedError: the gradients are no numbers any more.
        StepError: the processes could not do it.
        UserError: the settings do not fit the data or the machine.
    """
    if request.out is None:
        raise ValueError("a training needs a folder to write to")
    if processes == 1:
        run_training(request)
    else:
        train_in_processes(WORKER, request.model_dump_json(), processes, request.checkpoint_uri)
    return read_outcome(request.out)
