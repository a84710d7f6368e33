"""What a job needs, found and checked before anything is copied."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from components.core.contracts.job import Data, Job, Preprocess, Split, Task
from components.core.errors import UserError
from components.core.storage import check_size
from components.core.tasks.text import TOKENIZER
from components.fetch.coco import category_names, check_coco, file_names, read_coco
from components.fetch.labelled import class_names, document_of, find_labelled
from components.fetch.lessons import PlannedLessons, plan_lessons
from components.fetch.lookup import Source, Sources
from components.fetch.model_files import plan_model


@dataclass(frozen=True)
class PlannedSplit:
    """A split whose files all exist and whose annotations are sound."""

    name: str
    source: Split
    annotations: Source | None
    """None for class folders, which say everything by their names."""
    document: dict[str, Any]
    """COCO, or the samples of a classifier."""
    images: dict[str, Source]
    """Images or recordings by name; empty for texts."""
    warnings: dict[str, int]
    where: str
    """Field and file, for messages."""

    @property
    def media(self) -> str:
        """Where the images or recordings are from; empty for texts."""
        return self.source.images or self.source.audio or ""

    @property
    def images_bytes(self) -> int:
        """Size of all images."""
        return sum(image.size for image in self.images.values())


@dataclass(frozen=True)
class Plan:
    """Everything that has to be brought; `model` maps paths in the bundle's model folder to their sources."""

    model: dict[Path, Source]
    splits: tuple[PlannedSplit, ...]
    lessons: PlannedLessons

    @property
    def total_bytes(self) -> int:
        """Size of all of it."""
        lists = sum(split.annotations.size for split in self.splits if split.annotations)
        data = lists + sum(split.images_bytes for split in self.splits)
        return data + sum(source.size for source in self.model.values()) + self.lessons.total_bytes


def plan_fetch(job: Job, sources: Sources) -> Plan:
    """Finds every file of the job and checks what can be checked without copying images.

    Raises:
        UserError: a file is missing, of the wrong kind, damaged or not sound, or all of it is over
            `data.max_download`; one line that names the field.
    """
    model = plan_model(job.model, sources, job.data) | _plan_tokenizer(job.preprocess, sources)
    lessons = plan_lessons(job, sources)
    if job.task is Task.DETECTION:
        train, test = (_plan_split(name, getattr(job.data, name), sources, job.data) for name in ("train", "test"))
        plan = Plan(model, (train, test), lessons)
        _check_same_categories(train, test)
    else:
        plan = Plan(model, _plan_labelled(job, sources), lessons)
    check_size("the model and the data together", plan.total_bytes, job.data.max_download)
    return plan


def _plan_tokenizer(preprocess: Preprocess, sources: Sources) -> dict[Path, Source]:
    if not preprocess.tokenizer:
        return {}
    field, accepted = "preprocess.tokenizer", "the path or s3:// URI of a tokenizer.json of Hugging Face tokenizers"
    if not preprocess.tokenizer.lower().endswith(".json"):
        raise UserError(f"{field}: {preprocess.tokenizer} is no .json file; give {accepted}")
    return {Path(TOKENIZER): sources.file(field, preprocess.tokenizer, accepted)}


def _plan_labelled(job: Job, sources: Sources) -> tuple[PlannedSplit, PlannedSplit]:
    """Both splits of a classifier, with one list of classes."""
    train, test = (
        find_labelled(name, split, job.task, sources)
        for name, split in (("train", job.data.train), ("test", job.data.test))
    )
    labels = class_names(job, train, test)
    first, second = (
        PlannedSplit(name, split, found.annotations, document_of(found, labels), found.files, {}, found.where)
        for name, split, found in (("train", job.data.train, train), ("test", job.data.test, test))
    )
    return first, second


def _plan_split(name: str, split: Split, sources: Sources, data: Data) -> PlannedSplit:
    field = f"data.{name}.annotations"
    where = f"{field}: {split.annotations}"
    annotations = sources.file(field, str(split.annotations), "the path or s3:// URI of a COCO JSON file")
    check_size(where, annotations.size, data.max_download)
    document = read_coco(sources.read(annotations, f"downloading the {name} annotations"), where)
    images = sources.folder(f"data.{name}.images", str(split.images), file_names(document))
    findings = check_coco(document, images)
    findings.raise_errors(where)
    return PlannedSplit(name, split, annotations, document, images, findings.warning_counts(), where)


def _check_same_categories(train: PlannedSplit, test: PlannedSplit) -> None:
    first, second = category_names(train.document), category_names(test.document)
    for number in sorted(first.keys() & second.keys()):
        if first[number] != second[number]:
            raise UserError(
                f"data.test.annotations: category {number} is {second[number]!r} there and {first[number]!r} in "
                "data.train.annotations; give both files the same categories"
            )
