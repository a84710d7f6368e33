import pytest

from components.core.contracts.job import Metric
from components.core.tasks.detection import Detections, drop_padding, evaluate, fit, read_split, unfit
from components.export.candidate_counts import Trial, choose_counts, first_images, is_as_good
from components.export.canonical_detector import CandidateCounts
from components.export.canonical_faster_rcnn import CanonicalFasterRCNN
from fixtures.detectors import tiny_faster_rcnn, write_coco


def test_the_smallest_counts_without_loss_are_chosen(tmp_path):
    write_coco(tmp_path / "split", 3)
    split = read_split(tmp_path / "split" / "annotations.json", tmp_path / "split" / "images")
    model = tiny_faster_rcnn(rpn_pre_nms_top_n_test=1000, rpn_post_nms_top_n_test=1000)
    chosen, trials = choose_counts(CanonicalFasterRCNN(model, 96, 96), split)
    assert trials[0].counts == CandidateCounts(1000, 1000)
    assert len(trials) == 4
    good = [trial.counts.proposals for trial in trials if is_as_good(trial, trials[0])]
    assert chosen.proposals == min(good)


def test_a_trial_that_costs_accuracy_is_refused():
    own = Trial(CandidateCounts(1000, 1000), map50=0.5, map=0.3)
    assert is_as_good(Trial(CandidateCounts(300, 200), 0.499, 0.299), own)
    assert not is_as_good(Trial(CandidateCounts(300, 200), 0.49, 0.3), own)
    assert not is_as_good(Trial(CandidateCounts(300, 200), 0.5, 0.29), own)


@pytest.mark.parametrize("count", [1, 2, 5])
def test_first_images_leaves_a_whole_split(tmp_path, count):
    write_coco(tmp_path / "split", 3)
    split = first_images(read_split(tmp_path / "split" / "annotations.json", tmp_path / "split" / "images"), count)
    names = [image.file_name for image in split.images]
    assert names == ["001.png", "002.png", "003.png"][:count]
    assert len(split.document["annotations"]) == 2 * len(names)
    perfect: dict[str, Detections] = {}
    for image in split.images:
        boxes = [a["bbox"] for a in split.document["annotations"] if a["image_id"] == image.id]
        corners = [[x, y, x + w, y + h] for x, y, w, h in boxes]
        scale = fit(image.load(), 96, 96)[1]
        found = drop_padding(corners, [0.9, 0.8], [1, 1])
        perfect[image.file_name] = Detections(unfit(found.boxes, scale), found.scores, found.labels)
    assert evaluate(perfect, split)[Metric.MAP50] == pytest.approx(1.0)
