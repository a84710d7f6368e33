"""What the teachers say of every sample: asked once, kept by content, taken up again after an interruption."""

import hashlib
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from components.core.contracts.job import Job, Task
from components.core.files import sha256_file
from components.core.stepping import progress
from components.core.tasks.adapter import Inputs, Sample, TaskAdapter, task_adapter
from components.core.training.stopping import StoppedError, stop_requests
from components.distill.cache import AnswerStore, digest_of
from components.distill.teachers import Answer, OpenTeacher, teacher_facts

_FORMAT = 1
_SHARD = 64
"""Samples of a file, about; what is lost when a process is killed."""
_MOST_BITS = 12


@dataclass(frozen=True)
class Asked:
    """How much was to be asked, and how much was known already."""

    answers: int
    reused: int
    bytes: int


class Answers:
    """What one teacher says, read from the files when it is needed.

    Args:
        places: the file that holds the answers about a sample, by the sample's digest.
    """

    def __init__(self, places: dict[str, Path]) -> None:
        self._places = places
        self._open: dict[Path, Any] = {}

    def of(self, digest: str, view: int = 0) -> Answer:
        """The answer about a sample of that `sample_digest`; view 1 is the mirrored image."""
        path = self._places[digest]
        if path not in self._open:
            self._open[path] = safe_open(path, "numpy")
        file, start = self._open[path], f"{digest}/{view}/"
        return {key.removeprefix(start): file.get_tensor(key) for key in file.keys() if key.startswith(start)}  # noqa: SIM118

    def __getstate__(self) -> dict[str, Any]:
        # A process that reads ahead opens the files itself.
        return {"_places": self._places, "_open": {}}


def ask(
    job: Job, bundle: Path, store: AnswerStore, number: int, samples: Sequence[Sample], *, mirrored: bool = False
) -> tuple[Answers, Asked]:
    """Everything a teacher says of these samples; what it was asked before is read and not asked again.

    Args:
        job: task, target, teachers.
        bundle: what `fetch` made.
        store: where answers are kept.
        number: which teacher.
        samples: of all splits that are learnt from.
        mirrored: whether to ask about the mirrored images too.

    Raises:
        StoppedError: SIGINT or SIGTERM came; what was answered is kept.
        UserError: the teacher cannot be loaded.
        StepError: it returns NaN or nothing that such a model returns.
    """
    facts = _facts(job, bundle, number, mirrored=mirrored)
    by_digest = {sample_digest(sample): sample for sample in samples}
    shards = {_name(facts, shard): shard for shard in _shards(sorted(by_digest))}
    places: dict[str, Path] = {}
    missing = {}
    for name, shard in shards.items():
        found = _whole(store.find(name), shard)
        if found is None:
            missing[name] = shard
        else:
            places |= dict.fromkeys(shard, found)
    reused = len(places)
    if missing:
        total = len(by_digest)
        with stop_requests() as asked, OpenTeacher(job, bundle, number) as teacher:
            adapter = task_adapter(job, bundle)
            for name, shard in missing.items():
                content: Answer = {}
                for start, group in _groups(shard, teacher.at_once):
                    progress(f"asking teacher {number + 1}", len(places) + start, total)
                    content |= _asked(teacher, adapter, {one: by_digest[one] for one in group}, mirrored=mirrored)
                    if asked():
                        raise StoppedError(
                            f"stopped while teacher {number + 1} answered, after {len(places)} of {total} samples; the "
                            f"same command goes on from there ({store.uri})",
                            asked(),
                        )
                store.keep(name, save(content))
                kept = store.find(name)
                if kept is None:
                    raise OSError(f"what the teacher answered is not in {store.uri}")
                places |= dict.fromkeys(shard, kept)
    size = sum(path.stat().st_size for path in set(places.values()))
    return Answers(places), Asked(len(places), reused, size)


def sample_digest(sample: Any) -> str:
    """Hex digest of what a sample is made of: the content of its file, or its text."""
    source = sample.path if hasattr(sample, "path") else sample.source
    if isinstance(source, Path):
        # The stated size decides whether an image is turned.
        return hashlib.sha256(f"{sha256_file(source)} {getattr(sample, 'size', None)}".encode()).hexdigest()
    return hashlib.sha256(str(source).encode("utf-8", "surrogatepass")).hexdigest()


def _facts(job: Job, bundle: Path, number: int, *, mirrored: bool) -> dict[str, Any]:
    tokenizer = bundle / "model" / "tokenizer.json"
    return {
        "format": _FORMAT,
        "teacher": teacher_facts(job, bundle, number),
        "task": str(job.task),
        "input": list(job.target.input_shape[1:]),
        "preprocess": job.preprocess.model_dump(mode="json", exclude={"tokenizer"}),
        "tokenizer": sha256_file(tokenizer) if job.task is Task.TEXT else "",
        "mirrored": mirrored,
    }


def _shards(digests: Sequence[str]) -> Iterator[list[str]]:
    """Groups of about `_SHARD` samples that start with the same bits, so that a new sample moves no other."""
    bits = min(max(math.ceil(math.log2(max(len(digests), 1) / _SHARD)), 0), _MOST_BITS)
    groups: dict[int, list[str]] = {}
    for digest in digests:
        groups.setdefault(int(digest[:4], 16) >> (16 - bits), []).append(digest)
    yield from groups.values()


def _name(facts: dict[str, Any], shard: Sequence[str]) -> str:
    teacher = digest_of(facts)[:32]
    return f"{teacher}/{digest_of({'samples': list(shard)})[:32]}.safetensors"


def _whole(path: Path | None, shard: Sequence[str]) -> Path | None:
    """The file if it can be read and has all that is to be in it."""
    if path is None:
        return None
    try:
        with safe_open(path, "numpy") as file:
            known = {key.partition("/")[0] for key in file.keys()}  # noqa: SIM118
    except (SafetensorError, OSError):
        return None
    return path if known == set(shard) else None


def _groups(shard: Sequence[str], size: int) -> Iterator[tuple[int, Sequence[str]]]:
    for start in range(0, len(shard), size):
        yield start, shard[start : start + size]


def _asked(teacher: OpenTeacher, adapter: TaskAdapter, samples: dict[str, Sample], *, mirrored: bool) -> Answer:
    inputs = [adapter.encode(sample.load())[0] for sample in samples.values()]
    views = [inputs, [_mirrored(one) for one in inputs]] if mirrored else [inputs]
    content: Answer = {}
    for view, given in enumerate(views):
        for digest, answer in zip(samples, teacher.answers(given), strict=True):
            content |= {f"{digest}/{view}/{name}": np.ascontiguousarray(array) for name, array in answer.items()}
    return content


def _mirrored(inputs: Inputs) -> Inputs:
    return {name: np.ascontiguousarray(value[..., ::-1]) for name, value in inputs.items()}
