"""Compares new data with what the champion was trained on, and says whether they may be trained on."""

import json
from pathlib import Path

from components.core.contracts.champion import Champion, Outcome, Verdict
from components.core.contracts.dataset import SplitStatistics
from components.core.contracts.job import Job, Retrain
from components.core.errors import UserError
from components.core.stepping import progress
from components.core.tasks.detection_statistics import statistics_of
from components.drift.card import Check, DataCard, Grade
from components.drift.distance import by_chance, distance

_SCALE = {
    "labels": "of the labels are others",
    "size of the boxes": "of the boxes are of another size",
    "aspect ratio of the boxes": "of the boxes are of another shape",
    "place of the boxes across": "of the boxes are elsewhere across the image",
    "place of the boxes down": "of the boxes are elsewhere down the image",
    "boxes an image": "of the images have another number of boxes",
}


def run_drift(job: Job, bundle: Path, champion: Path, out: Path) -> tuple[DataCard, Outcome]:
    """Writes the report card of the bundle's data into `out`.

    Refused, which ends the run with the champion in place: the champion's own data again, other categories, far fewer
    images or boxes, test images among those to train on, and distributions of labels or boxes that are further from the
    champion's than `retrain.max_drift` and than chance.

    Args:
        job: its `retrain` has the limits.
        bundle: what `fetch` made of the new data.
        champion: what the step `champion` made.
        out: gets `data_card.json` and `data_card.md`.

    Returns:
        The card, and the outcome of a run that ends here; its verdict is to promote where training goes on.

    Raises:
        UserError: the job has no `retrain` section.
    """
    if job.retrain is None:
        raise UserError("retrain: the job has no such section; add `retrain: {}` to take the usual limits")
    limits, holder = job.retrain, Champion.read(champion)
    fetched = json.loads((bundle / "fetch_card.json").read_text())
    progress("counting the new data")
    train, test = (_split(bundle, fetched, name) for name in ("train", "test"))
    checks = [_shared(int(fetched["shared_images"]), limits)]
    if holder.record is None:
        checks.append(
            Check(
                name="comparison",
                grade=Grade.NOTED,
                found=f"version {holder.version} has no record of its data",
                reason="published by a job without `retrain`, so that nothing can be compared",
            )
        )
    else:
        before = holder.record
        checks += _news(before.train, train, holder.version)
        for name, old, new in (("train", before.train, train), ("test", before.test, test)):
            checks += [_schema(name, old, new), *_counts(name, old, new, limits)]
            checks += _distributions(name, old, new, limits, job.budget.seed)
    card = DataCard(champion=holder.version, checks=checks, train=train, test=test)
    card.write(out)
    refused = card.refusals
    words = f"nothing was trained: {'; '.join(refused)}" if refused else "the data can be trained on"
    progress(words)
    verdict = Verdict.KEEP if refused else Verdict.PROMOTE
    return card, Outcome(verdict=verdict, reason=words, champion=holder.version, stage="data")


def _split(bundle: Path, fetched: dict[str, dict[str, str]], name: str) -> SplitStatistics:
    document = json.loads((bundle / "data" / name / "annotations.json").read_text())
    return statistics_of(document, fetched[name]["annotations_sha256"], fetched[name]["images_sha256"])


def _shared(count: int, limits: Retrain) -> Check:
    refused = count > limits.max_shared_images
    return Check(
        name="images of test in train",
        grade=Grade.REFUSED if refused else Grade.OK,
        found=str(count),
        allowed=str(limits.max_shared_images),
        reason=f"{count} images of test are in train too, so that the test would say nothing" if refused else "",
    )


def _news(before: SplitStatistics, after: SplitStatistics, version: str) -> list[Check]:
    same = before.same_files(after)
    return [
        Check(
            name="new training data",
            grade=Grade.REFUSED if same else Grade.OK,
            found="none" if same else f"{before.images} -> {after.images} images",
            reason=f"there are no new data since version {version} was trained" if same else "",
        )
    ]


def _schema(split: str, before: SplitStatistics, after: SplitStatistics) -> Check:
    same = before.categories == after.categories
    shown = ", ".join(f"{number} {name}" for number, name in sorted(after.categories.items()))
    known = ", ".join(f"{number} {name}" for number, name in sorted(before.categories.items()))
    return Check(
        name=f"categories of {split}",
        grade=Grade.OK if same else Grade.REFUSED,
        found=shown,
        allowed=known,
        reason="" if same else f"the categories of {split} are {shown}; the champion knows {known}",
    )


def _counts(split: str, before: SplitStatistics, after: SplitStatistics, limits: Retrain) -> list[Check]:
    checks = []
    for what, old, new in (("images", before.images, after.images), ("boxes", before.boxes, after.boxes)):
        least = old * (1 - limits.max_shrinkage)
        refused = new < least
        reason = f"{split} has {new} {what}, the champion's had {old}; at least {least:g} wanted" if refused else ""
        checks.append(
            Check(
                name=f"{what} of {split}",
                grade=Grade.REFUSED if refused else Grade.OK,
                found=str(new),
                allowed=f"at least {least:g}",
                reason=reason,
            )
        )
    return checks


def _distributions(
    split: str, before: SplitStatistics, after: SplitStatistics, limits: Retrain, seed: int
) -> list[Check]:
    checks = []
    for name, words in _SCALE.items():
        old, new = before.histograms.get(name), after.histograms.get(name)
        if old is None or new is None:
            continue
        found, chance = distance(old, new), by_chance(old, new, seed)
        refused = found > limits.max_drift and found > chance
        # What is more than chance and yet allowed is worth knowing.
        grade = Grade.REFUSED if refused else Grade.NOTED if found > chance else Grade.OK
        told = f"in {split}, {found:.0%} {words}"
        checks.append(
            Check(
                name=f"{name}, {split}",
                grade=grade,
                found=f"{found:.1%}, by chance up to {chance:.1%}",
                allowed=f"{limits.max_drift:.1%}",
                reason=f"{told}, more than the {limits.max_drift:.0%} allowed" if refused else "",
            )
        )
    return checks
