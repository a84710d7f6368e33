"""Teachers: the user's model or others, each in its own runtime, asked for outputs and perhaps for features."""

from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from components.core.contracts.job import Job, Runtime, Task, Teacher
from components.core.contracts.variant import Variant
from components.core.errors import UserError
from components.core.factory_code import factory_digest
from components.core.files import sha256_tree
from components.core.models import bundled, load_torch_model
from components.core.runtimes.interface import Session, load_session
from components.core.runtimes.torch_eager import TorchLogitsSession, TorchSession
from components.core.tasks.adapter import Inputs, stack, task_adapter
from components.core.tasks.detection import Detections
from components.core.training.precision import usable_device
from components.distill.features import watched

Answer = dict[str, npt.NDArray[Any]]
"""What a teacher says of a sample: `logits` [classes], or `boxes`, `scores` and `labels`; and `hint.N` [C, ...]."""
_AT_ONCE = 32


def teachers_of(job: Job) -> list[Teacher]:
    """The job's teachers: those that it names, else its own model."""
    if job.distill is None:
        raise ValueError("the job has no distill")
    return job.distill.teachers or [Teacher(**job.model.model_dump())]


def teacher_folder(job: Job, bundle: Path, number: int) -> Path:
    """Where `fetch` put a teacher's files."""
    if job.distill is not None and job.distill.teachers:
        return bundle / "teachers" / str(number)
    return bundle / "model"


def teacher_facts(job: Job, bundle: Path, number: int) -> dict[str, Any]:
    """Everything that decides what a teacher says: it goes into the names of what is kept of it."""
    teacher = teachers_of(job)[number]
    return {
        "content": sha256_tree(teacher_folder(job, bundle, number)),
        "kind": "onnx" if teacher.onnx else "program" if teacher.program else teacher.factory,
        "kwargs": teacher.kwargs,
        "code": factory_digest(teacher.factory),
        "runtime": str(teacher.runtime or ""),
        "hints": hints_of(job, number),
    }


def hints_of(job: Job, number: int) -> list[str]:
    """The parts of a teacher whose features are asked for, each once, in order."""
    hints = job.distill.hints if job.distill else []
    return list(dict.fromkeys(hint.teacher for hint in hints if hint.of == number))


class OpenTeacher:
    """A teacher that was loaded; to be used as a context.

    Args:
        job: task, target, teachers.
        bundle: what `fetch` made.
        number: which of the teachers.

    Raises:
        UserError: it cannot be loaded, or has no such part as a hint names.
        StepError: its runtime refuses it.
    """

    def __init__(self, job: Job, bundle: Path, number: int) -> None:
        self._number = number
        self._source = teachers_of(job)[number]
        self._folder = teacher_folder(job, bundle, number)
        self._hints = hints_of(job, number)
        self._stack = ExitStack()
        self._seen: dict[str, torch.Tensor] = {}
        self._session = self._load(job, bundle)
        self.at_once = self._batch(job)
        """How many samples it takes in one call."""

    def __enter__(self) -> "OpenTeacher":
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def answers(self, inputs: Sequence[Inputs]) -> list[Answer]:
        """What it says of encoded samples, at most `at_once` of them.

        Raises:
            StepError: its outputs are NaN, infinite or not those of such a model.
        """
        size = self.at_once if self._source.onnx else len(inputs)
        found = self._session.run(stack(inputs, size))[: len(inputs)]
        answers = [_answer(one) for one in found]
        for place, name in enumerate(self._hints):
            features = self._seen[name].to(torch.float16).cpu().numpy()
            if len(features) != len(inputs):
                raise UserError(
                    f"distill.hints: {name} of teacher {self._number} gives {len(features)} features for {len(inputs)} "
                    "samples; name a part that gives one for each"
                )
            for answer, feature in zip(answers, features, strict=True):
                answer[f"hint.{place}"] = feature
        return answers

    def _load(self, job: Job, bundle: Path) -> Session:
        source, threads = self._source, torch.get_num_threads()
        if source.onnx:
            file = bundled(source.onnx, Path()).name
            runtime = source.runtime or Runtime.ONNXRUNTIME
            variant = Variant(id=f"teacher {self._number}", runtime=runtime, techniques=[], file=file)
            on_cpu = job.model_copy(update={"target": job.target.model_copy(update={"device": "cpu"})})
            return load_session(variant, self._folder, on_cpu, bundle, threads)
        module = load_torch_model(source, self._folder)
        field = f"distill.hints: teacher {self._number}"
        self._seen = self._stack.enter_context(watched(module, self._hints, field))
        if job.task is Task.DETECTION:
            return TorchSession(module, usable_device(), takes_list=source.program is None)
        return TorchLogitsSession(module, usable_device(), task_adapter(job, bundle))

    def _batch(self, job: Job) -> int:
        if self._source.onnx:
            return _fixed_batch(self._folder / bundled(self._source.onnx, Path()).name)
        return 1 if job.task is Task.DETECTION or self._source.program else _AT_ONCE


def _answer(prediction: Any) -> Answer:
    if isinstance(prediction, Detections):
        return {"boxes": prediction.boxes, "scores": prediction.scores, "labels": prediction.labels}
    return {"logits": np.asarray(prediction, np.float32)}


def _fixed_batch(path: Path) -> int:
    """How many samples an ONNX file takes at once; 1 where it takes any number."""
    import onnx

    inputs = onnx.load(path, load_external_data=False).graph.input
    dims = inputs[0].type.tensor_type.shape.dim if inputs else []
    return max(int(dims[0].dim_value), 1) if len(dims) != 3 and dims else 1
