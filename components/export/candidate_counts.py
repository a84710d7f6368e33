"""Chooses how many boxes the detector's tail carries: as few as lose no accuracy on the training split.

A Faster R-CNN ships with 1000 proposals an image. Each one is pooled and classified, so on a fast backbone they are
most of the work. A RetinaNet compares up to 5000 boxes with one another in its suppression, an SSD 400 of each class.
Nothing here looks at the test split.
"""

from dataclasses import dataclass, replace

import torch

from components.core.contracts.job import Metric
from components.core.stepping import progress
from components.core.tasks.detection import Detections, DetectionSplit, drop_padding, evaluate, fit, unfit
from components.export.canonical_detector import CandidateCounts, CanonicalDetector

TOLERANCE = 0.002
"""Drop of mAP50 and of mAP (absolute, 0..1) that counts as none."""
MAX_IMAGES = 24


@dataclass(frozen=True)
class Trial:
    """Accuracy on the training split (0..1) with some counts."""

    counts: CandidateCounts
    map50: float
    map: float


def choose_counts(detector: CanonicalDetector, split: DetectionSplit) -> tuple[CandidateCounts, list[Trial]]:
    """Returns the smallest counts without loss of accuracy, and every trial; the first is the model's own counts."""
    options = [detector.counts, *detector.fewer()]
    found: list[dict[str, Detections]] = [{} for _ in options]
    split = first_images(split, MAX_IMAGES)
    for done, image in enumerate(split.images):
        progress("choosing candidate counts", done, len(split.images))
        batch, scale = fit(image.load(), *detector.image_size)
        with torch.inference_mode():
            features = detector.features(torch.from_numpy(batch))
            for option, detections in zip(options, found, strict=True):
                boxes, scores, labels = drop_padding(*(part.numpy() for part in detector.detect(features, option)))
                detections[image.file_name] = Detections(unfit(boxes, scale), scores, labels)
    accuracies = [evaluate(detections, split) for detections in found]
    trials = [Trial(option, a[Metric.MAP50], a[Metric.MAP]) for option, a in zip(options, accuracies, strict=True)]
    good = [trial for trial in trials if is_as_good(trial, trials[0])]
    return min(good, key=lambda trial: trial.counts.proposals).counts, trials


def is_as_good(trial: Trial, own: Trial) -> bool:
    """Whether a trial loses no accuracy against the model's own counts."""
    return trial.map50 >= own.map50 - TOLERANCE and trial.map >= own.map - TOLERANCE


def first_images(split: DetectionSplit, count: int) -> DetectionSplit:
    """The split's first ``count`` images and their annotations."""
    images = split.images[:count]
    kept = {image.id for image in images}
    document = dict(split.document)
    document["images"] = [record for record in document["images"] if record["id"] in kept]
    document["annotations"] = [record for record in document["annotations"] if record["image_id"] in kept]
    return replace(split, images=images, document=document)
