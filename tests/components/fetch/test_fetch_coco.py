import copy
import json
import math
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from components.core.errors import UserError
from components.fetch.coco import check_coco, check_image_sizes, file_names, normalized, read_coco

GOOD = {
    "images": [
        {"id": 1, "file_name": "a.png", "width": 100, "height": 50},
        {"id": 2, "file_name": "d/b.png", "width": 100, "height": 50},
    ],
    "annotations": [
        {"id": 1, "image_id": 1, "category_id": 1, "bbox": [0, 0, 100, 50]},
        {"id": 2, "image_id": 2, "category_id": 2, "bbox": [10.5, 10, 20, 30.25]},
    ],
    "categories": [{"id": 1, "name": "tree"}, {"id": 2, "name": "shrub"}],
}
FILES = ["a.png", "d/b.png"]
SIZES = {"a.png": ((100, 50),), "d/b.png": ((100, 50),)}


def good() -> dict[str, Any]:
    return copy.deepcopy(GOOD)


def error_of(document: dict[str, Any], present: list[str] = FILES) -> str:
    with pytest.raises(UserError) as caught:
        check_coco(document, present).raise_errors("data.train.annotations: x.json")
    message = str(caught.value)
    assert message.startswith("data.train.annotations: x.json: ")
    assert message.endswith("; correct the data and run again")
    assert message.isprintable()
    return message


def test_a_good_document() -> None:
    findings = check_coco(good(), FILES)
    assert not findings.errors
    assert not findings.warnings
    findings.raise_errors("x")


@pytest.mark.parametrize(
    ("box", "message"),
    [
        ([90, 10, 20, 10], "boxes outside their image: 1 (annotation 2 by 10 px)"),
        ([-3, 10, 20, 10], "boxes outside their image: 1 (annotation 2 by 3 px)"),
        ([10, 45, 20, 10], "boxes outside their image: 1 (annotation 2 by 5 px)"),
        ([10, -1.5, 20, 10], "boxes outside their image: 1 (annotation 2 by 1.5 px)"),
        ([math.nan, 1, 2, 3], "boxes that are not four finite numbers: 1 (annotation 2)"),
        ([1, 1, math.inf, 3], "boxes that are not four finite numbers: 1 (annotation 2)"),
        ([1, 1, 10**400, 3], "boxes that are not four finite numbers: 1 (annotation 2)"),
        ([1e308, 1, 1e308, 3], "boxes outside their image: 1 (annotation 2 by inf px)"),
        ([1, 2, 3], "boxes that are not four finite numbers"),
        (["1", 2, 3, 4], "boxes that are not four finite numbers"),
        ([True, 2, 3, 4], "boxes that are not four finite numbers"),
        (None, "boxes that are not four finite numbers"),
    ],
)
def test_boxes(box: object, message: str) -> None:
    document = good()
    document["annotations"][1]["bbox"] = box
    assert message in error_of(document)


@pytest.mark.parametrize("box", [[-1, 0, 10, 10], [90, 40, 11, 10], [90, 40, 10, 11]])
def test_a_box_over_the_edge_by_a_pixel_is_counted(box: list[float]) -> None:
    document = good()
    document["annotations"][1]["bbox"] = box
    findings = check_coco(document, FILES)
    assert not findings.errors
    assert findings.warning_counts() == {"boxes that leave their image by a pixel at most": 1}


@pytest.mark.parametrize("box", [[5, 5, 0, 10], [5, 5, 10, 0], [5, 5, -2, 10], [500, 500, 0, 0]])
def test_a_box_without_an_area_is_counted_and_left_out(box: list[float]) -> None:
    document = good()
    document["annotations"][0]["bbox"] = box
    findings = check_coco(document, FILES)
    assert not findings.errors
    assert findings.warning_counts() == {"boxes without an area, left out": 1}
    assert [record["bbox"] for record in normalized(document, SIZES)["annotations"]] == [GOOD["annotations"][1]["bbox"]]


def test_only_boxes_without_an_area() -> None:
    document = good()
    for record in document["annotations"]:
        record["bbox"] = [1, 1, 0, 0]
    assert "boxes without an area, so that none is left: 1 (all 2)" in error_of(document)


def test_the_other_errors() -> None:
    document = good()
    document["annotations"][0]["category_id"] = 9
    assert "unknown category ids: 1 (annotation 1: category 9)" in error_of(document)

    document = good()
    document["annotations"][1]["image_id"] = 77
    del document["annotations"][0]["image_id"]
    expected = "annotations of unknown images: 2 (annotation 1: image not given, annotation 2: image 77)"
    assert expected in error_of(document)

    document = good()
    document["annotations"][1]["id"] = 1
    document["images"][1]["id"] = 1
    document["images"][1]["file_name"] = "a.png"
    document["categories"][1]["id"] = 1
    message = error_of(document)
    for part in (
        "annotation ids given twice: 1 (1)",
        "image ids given twice: 1 (1)",
        "category ids given twice: 1 (1)",
    ):
        assert part in message
    assert "file names given twice: 1 (a.png)" in message

    assert "missing images: 2 ('a.png', 'd/b.png')" in error_of(good(), [])

    document = good()
    document["images"][0] |= {"file_name": "../../etc/passwd", "width": -1}
    message = error_of(document)
    assert "file names that cannot be used: 1 ('../../etc/passwd' climbs out of its folder)" in message
    assert "images whose width or height is no positive integer: 1" in message

    document = good()
    document["images"][0] = "a.png"
    document["annotations"][0] = []
    document["categories"][0] = {"id": "1", "name": "tree"}
    message = error_of(document)
    assert "images without an integer id and a file_name: 1 (number 1)" in message
    assert "annotations that are no objects: 1 (number 1)" in message
    assert "categories without an integer id and a name: 1 (number 1)" in message


def test_many_problems_are_counted_and_the_first_shown() -> None:
    document = good()
    document["annotations"] = [
        {"id": number, "image_id": 1, "category_id": 5, "bbox": [1, 1, 2, 2]} for number in range(1, 500)
    ]
    assert (
        "unknown category ids: 499 (annotation 1: category 5, annotation 2: category 5, annotation 3: category 5, ...)"
        in error_of(document)
    )


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "is no JSON"),
        ("{", "is no JSON"),
        ("\xff", "is no JSON"),
        ("[" * 100_000, "is no JSON"),
        ("[]", "is no COCO detection file; it needs lists named images, annotations, categories"),
        ('{"images": [], "annotations": []}', "is no COCO detection file"),
        ('{"images": {}, "annotations": [], "categories": []}', "is no COCO detection file"),
        ('{"images": [], "annotations": [1], "categories": [1]}', "has 0 images; at least one of each is needed"),
        ('{"images": [1], "annotations": [], "categories": []}', "has 0 annotations and 0 categories"),
    ],
)
def test_files_that_are_no_coco(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "x.json").write_bytes(text.encode("latin-1"))
    with pytest.raises(UserError, match=f"^data.test.annotations: x.json {message}") as caught:
        read_coco(tmp_path / "x.json", "data.test.annotations: x.json")
    assert "\n" not in str(caught.value)


def test_sizes_of_the_files_count() -> None:
    document = good()
    assert not check_image_sizes(document, SIZES).errors
    found = check_image_sizes(document, {"a.png": ((50, 100),), "d/b.png": ()}).errors
    assert found == {
        "images of another size than stated": ["'a.png' is 50x100, stated 100x50"],
        "files that are no readable image": ["'d/b.png'"],
    }
    turned = {"a.png": ((50, 100), (100, 50)), "d/b.png": ((100, 50),)}
    assert not check_image_sizes(document, turned).errors


def test_optional_fields_are_filled_in() -> None:
    document = good()
    del document["images"][0]["width"], document["annotations"][0]["id"]
    document["images"][1]["height"] = None
    document["annotations"][1] |= {"iscrowd": 1, "area": 7, "id": "b"}
    assert not check_coco(document, FILES).errors
    filled = normalized(document, SIZES)
    assert [(image["width"], image["height"]) for image in filled["images"]] == [(100, 50), (100, 50)]
    assert [(a["id"], a["area"], a["iscrowd"]) for a in filled["annotations"]] == [(1, 5000, 0), (2, 7, 1)]
    assert filled["categories"] == GOOD["categories"]


SCALARS = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5) | st.just("a.png")
VALUES = st.recursive(SCALARS, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=3), inner))


@settings(max_examples=200, deadline=None)
@given(st.data())
def test_any_document_is_judged_and_never_crashes(data: st.DataObject) -> None:
    document = good()
    for _ in range(data.draw(st.integers(1, 4))):
        records = document[data.draw(st.sampled_from(sorted(document)))]
        place = data.draw(st.integers(0, len(records) - 1))
        if isinstance(records[place], dict) and data.draw(st.booleans()):
            keys = ["id", "file_name", "width", "height", "image_id", "category_id", "bbox", "name", "area", "iscrowd"]
            records[place][data.draw(st.sampled_from(keys))] = data.draw(VALUES)
        else:
            records[place] = data.draw(VALUES)
    findings = check_coco(document, file_names(document))
    try:
        findings.raise_errors("x")
    except UserError as error:
        assert str(error).isprintable()  # noqa: PT017
        return
    # What passed is what the rest of the program can rely on.
    sizes = dict.fromkeys(file_names(document), ((100, 50),))
    if check_image_sizes(document, sizes).errors:
        return
    filled = json.loads(json.dumps(normalized(document, sizes)))
    ids = {image["id"] for image in filled["images"]}
    categories = {category["id"] for category in filled["categories"]}
    assert filled["annotations"]
    for record in filled["annotations"]:
        left, top, width, height = record["bbox"]
        assert record["image_id"] in ids
        assert record["category_id"] in categories
        assert width > 0
        assert height > 0
        assert left >= -1
        assert top >= -1
        assert left + width <= 101
        assert top + height <= 51
    assert len({record["id"] for record in filled["annotations"]}) == len(filled["annotations"])
