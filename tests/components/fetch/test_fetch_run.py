import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from fetch_jobs import edit, files_below, make_job, write_source, write_split
from onnx import TensorProto, helper, numpy_helper
from PIL import Image

from components.core.contracts.job import Job
from components.core.errors import UserError
from components.core.files import sha256_file, sha256_tree
from components.core.stepping import listening
from components.fetch import run as run_module
from components.fetch.card import FetchCard
from components.fetch.run import possible_sizes, run_fetch
from fixtures.seaweedfs import S3Server

ROOT = str(Path(run_module.__file__).parents[2])
BUNDLE = {
    "fetch_card.json",
    "model/weights.safetensors",
    "data/train/annotations.json",
    *(f"data/train/images/train/{number}.png" for number in (1, 2, 3)),
    "data/test/annotations.json",
    *(f"data/test/images/test/{number}.png" for number in (1, 2)),
}


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return write_source(tmp_path / "source")


@pytest.fixture
def job(source: Path) -> Job:
    return make_job(str(source))


@pytest.fixture
def out(tmp_path: Path) -> Path:
    return tmp_path / "work" / "bundle"


def refused(job: Job, out: Path) -> str:
    """The one line that a fetch is refused with; nothing may be left of it."""
    with pytest.raises(UserError) as caught:
        run_fetch(job, out)
    assert str(caught.value).isprintable()
    assert not out.parent.exists() or files_below(out.parent) == set()
    return str(caught.value)


def save_onnx(path: Path, location: str | None = None) -> None:
    """An ONNX file with one weight, in another file if `location` is given."""
    weight = numpy_helper.from_array(np.arange(64, dtype=np.float32), "w")
    if location is not None:
        weight.ClearField("raw_data")
        weight.data_location = TensorProto.EXTERNAL
        weight.external_data.add(key="location", value=location)
    out = helper.make_tensor_value_info("out", TensorProto.FLOAT, [64])
    graph = helper.make_graph([helper.make_node("Identity", ["w"], ["out"])], "g", [], [out], [weight])
    path.write_bytes(helper.make_model(graph).SerializeToString())


def test_the_bundle_and_its_card(job: Job, source: Path, out: Path) -> None:
    card = run_fetch(job, out)
    assert files_below(out) == BUNDLE
    assert FetchCard.read(out) == card
    (weights,) = card.model
    assert (weights.file, weights.size_bytes) == ("model/weights.safetensors", 7000)
    assert weights.sha256 == sha256_file(source / "weights.safetensors") == sha256_file(out / weights.file)
    assert (card.train.images, card.train.boxes, card.test.images, card.test.boxes) == (3, 6, 2, 4)
    assert card.train.annotations.sha256 == sha256_file(source / "train.json")
    assert card.train.annotations_sha256 == sha256_file(out / "data/train/annotations.json")
    assert card.test.images_sha256 == sha256_tree(out / "data/test/images")
    assert card.train.categories == {1: "tree"}
    assert card.train.warnings == {}
    assert card.shared_images == 0
    expected = [source / name for name in ("weights.safetensors", "train.json", "test.json")]
    expected += [source / "images" / f"{split}/{n}.png" for split, count in (("train", 3), ("test", 2)) for n in range(1, count + 1)]  # fmt: skip  # noqa: E501
    assert card.total_bytes == sum(path.stat().st_size for path in expected)


def test_the_same_job_gives_the_same_bundle_and_replaces_the_old_one(job: Job, out: Path) -> None:
    first = run_fetch(job, out)
    digest = sha256_tree(out)
    (out / "stale").touch()
    assert run_fetch(job, out) == first
    assert sha256_tree(out) == digest
    assert [path.name for path in out.parent.iterdir()] == ["bundle"]


@pytest.mark.parametrize("name", ["file", "file/bundle"])
def test_an_output_that_is_a_file(job: Job, tmp_path: Path, name: str) -> None:
    (tmp_path / "file").write_text("precious")
    with pytest.raises(UserError, match=f"{tmp_path}/file.*; give a folder that can be read and written"):
        run_fetch(job, tmp_path / name)
    assert (tmp_path / "file").read_text() == "precious"
    assert {path.name for path in tmp_path.iterdir()} == {"file", "source"}


def test_file_uris(source: Path, out: Path) -> None:
    run_fetch(make_job(source.as_uri()), out)
    assert files_below(out) == BUNDLE


def test_progress_is_reported(job: Job, out: Path) -> None:
    said: list[tuple[str, float | None, float | None]] = []
    with listening(lambda *news: said.append(news)):
        run_fetch(job, out)
    assert ("fetching the images of train", 3, 3) in said
    assert ("fetching the model", 1, 1) in said


def test_warnings_are_counted_in_the_card(job: Job, source: Path, out: Path) -> None:
    def spoil(document: dict[str, Any]) -> None:
        document["annotations"][0]["bbox"] = [3, 3, 0, 8]
        document["annotations"][1]["bbox"] = [60, 3, 5, 8]
        for image in document["images"]:
            del image["width"], image["height"]

    edit(source / "train.json", spoil)
    card = run_fetch(job, out)
    assert card.train.warnings == {
        "boxes without an area, left out": 1,
        "boxes that leave their image by a pixel at most": 1,
    }
    assert card.train.boxes == 5
    document = json.loads((out / "data/train/annotations.json").read_text())
    assert document["images"][0] == {"width": 64, "height": 48, "id": 1, "file_name": "train/1.png"}
    assert len(document["annotations"]) == 5


def test_images_in_both_splits_are_counted(job: Job, source: Path, out: Path) -> None:
    (source / "images/test/2.png").write_bytes((source / "images/train/1.png").read_bytes())
    assert run_fetch(job, out).shared_images == 1


def test_a_box_outside_an_image_that_states_no_size(job: Job, source: Path, out: Path) -> None:
    def spoil(document: dict[str, Any]) -> None:
        del document["images"][0]["width"]
        document["annotations"][0]["bbox"] = [60, 3, 20, 8]

    edit(source / "test.json", spoil)
    expected = f"data.test.annotations: {source}/test.json: boxes outside their image: 1 (annotation 1 by 16 px)"
    assert refused(job, out).startswith(expected)


@pytest.mark.parametrize("split", ["train", "test"])
def test_unsound_annotations(job: Job, source: Path, out: Path, split: str) -> None:
    edit(source / f"{split}.json", lambda document: document["annotations"][3].update(category_id=8))
    assert refused(job, out).startswith(
        f"data.{split}.annotations: {source}/{split}.json: unknown category ids: 1 (annotation 4: category 8)"
    )


def test_no_images_and_no_annotations(job: Job, source: Path, out: Path) -> None:
    edit(source / "train.json", lambda document: document.update(images=[], annotations=[]))
    assert "data.train.annotations: " in refused(job, out)
    assert "train.json has 0 images and 0 annotations; at least one of each is needed" in refused(job, out)


def test_missing_images(job: Job, source: Path, out: Path) -> None:
    (source / "images/train/2.png").unlink()
    assert "train.json: missing images: 1 ('train/2.png'); correct the data" in refused(job, out)


def test_images_that_are_none(job: Job, source: Path, out: Path) -> None:
    (source / "images/test/2.png").write_bytes(b"hello")
    Image.new("RGB", (48, 64)).save(source / "images/test/1.png")
    message = refused(job, out)
    assert "images of another size than stated: 1 ('test/1.png' is 48x64, stated 64x48)" in message
    assert "files that are no readable image: 1 ('test/2.png')" in message


def test_categories_that_differ(job: Job, source: Path, out: Path) -> None:
    edit(source / "test.json", lambda document: document["categories"][0].update(name="shrub"))
    assert "category 1 is 'shrub' there and 'tree' in data.train.annotations" in refused(job, out)


@pytest.mark.parametrize(
    ("missing", "message"),
    [
        (
            "weights.safetensors",
            "model.weights: {root}/weights.safetensors does not exist; give the path or s3:// URI of",
        ),
        ("train.json", "data.train.annotations: {root}/train.json does not exist; give"),
        ("images", "data.train.images: {root}/images does not exist; give the folder of the images"),
    ],
)
def test_missing_files(job: Job, source: Path, out: Path, missing: str, message: str) -> None:
    (source / missing).rename(source / "elsewhere")
    assert refused(job, out).startswith(message.format(root=source))


def test_files_of_the_wrong_kind(source: Path, out: Path) -> None:
    (source / "weights.safetensors").write_bytes(b"")
    assert "weights.safetensors is empty; give the path" in refused(make_job(str(source)), out)
    model = {"factory": "a:b", "weights": f"{source}/train.json"}
    assert "train.json is no .safetensors or .pt or .pth file; give" in refused(make_job(str(source), model), out)
    assert "model.onnx: http://host/m.onnx: http:// is not supported" in refused(
        make_job(str(source), {"onnx": "http://host/m.onnx"}), out
    ).replace("'", "")
    (source / "folder.pt2").mkdir()
    assert "folder.pt2 does not exist" in refused(make_job(str(source), {"program": f"{source}/folder.pt2"}), out)


def test_the_size_limit(source: Path, out: Path) -> None:
    job = make_job(str(source), max_download="30 kB")
    assert "the model and the data together is " in refused(job, out)
    assert "more than the limit of 30.0 kB; raise the limit (data.max_download)" in refused(job, out)


def test_an_onnx_model_with_external_data(source: Path, out: Path) -> None:
    (source / "weights").mkdir()
    (source / "weights" / "w.bin").write_bytes(np.arange(64, dtype=np.float32).tobytes())
    save_onnx(source / "model.onnx", "weights/w.bin")
    card = run_fetch(make_job(str(source), {"onnx": f"{source}/model.onnx"}), out)
    assert [file.file for file in card.model] == ["model/model.onnx", "model/weights/w.bin"]
    onnx.checker.check_model(str(out / "model" / "model.onnx"))
    assert numpy_helper.to_array(onnx.load(out / "model" / "model.onnx").graph.initializer[0])[5] == 5


def test_onnx_models_that_are_refused(source: Path, out: Path) -> None:
    job = make_job(str(source), {"onnx": f"{source}/model.onnx"})
    (source.parent / "secret.bin").write_bytes(b"s" * 256)
    save_onnx(source / "model.onnx", "../secret.bin")
    assert "model.onnx: external data: the path '../secret.bin' climbs out of its folder" in refused(job, out)
    save_onnx(source / "model.onnx", str(source.parent / "secret.bin"))
    assert "is absolute" in refused(job, out)
    (source / "link.bin").symlink_to(source.parent / "secret.bin")
    save_onnx(source / "model.onnx", "link.bin")
    assert "is a link that leaves the model's folder" in refused(job, out)
    save_onnx(source / "model.onnx", "missing.bin")
    assert "missing.bin does not exist; give the external data file" in refused(job, out)
    save_onnx(source / "model.onnx")
    (source / "model.onnx").write_bytes((source / "model.onnx").read_bytes()[:200])
    assert "model.onnx: " in refused(job, out)
    assert "is truncated or no ONNX file" in refused(job, out)


def test_images_turned_by_exif(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (30, 20)).save(tmp_path / "turned.jpg", exif=exif)
    Image.new("RGB", (30, 20)).save(tmp_path / "plain.jpg")
    assert possible_sizes(tmp_path / "turned.jpg") == ((30, 20), (20, 30))
    assert possible_sizes(tmp_path / "plain.jpg") == ((30, 20),)


@pytest.fixture
def bucket(s3: S3Server, source: Path) -> str:
    """The source, uploaded."""
    name = s3.new_bucket()
    for file in files_below(source):
        s3.client().upload_file(str(source / file), name, f"trees/{file}")
    return name


def test_from_s3(bucket: str, source: Path, out: Path, tmp_path: Path) -> None:
    card = run_fetch(make_job(f"s3://{bucket}/trees"), out)
    assert files_below(out) == BUNDLE
    local = run_fetch(make_job(str(source)), tmp_path / "local" / "bundle")
    assert card.train.images_sha256 == local.train.images_sha256
    assert card.test.annotations_sha256 == local.test.annotations_sha256
    assert card.model[0].sha256 == local.model[0].sha256
    assert card.model[0].source == f"s3://{bucket}/trees/weights.safetensors"


def test_an_onnx_model_with_external_data_from_s3(s3: S3Server, bucket: str, source: Path, out: Path) -> None:
    save_onnx(source / "model.onnx", "w/w.bin")
    s3.client().upload_file(str(source / "model.onnx"), bucket, "models/model.onnx")
    job = make_job(f"s3://{bucket}/trees", {"onnx": f"s3://{bucket}/models/model.onnx"})
    assert f"model.onnx: s3://{bucket}/models/w/w.bin does not exist" in refused(job, out)
    s3.client().put_object(Bucket=bucket, Key="models/w/w.bin", Body=np.arange(64, dtype=np.float32).tobytes())
    run_fetch(job, out)
    assert {"model/model.onnx", "model/w/w.bin"} < files_below(out)


def test_s3_errors_name_the_field(bucket: str, out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = {"images": "s3://no-such-bucket/images", "annotations": f"s3://{bucket}/trees/test.json"}
    message = refused(make_job(f"s3://{bucket}/trees", test=data), out)
    assert message.startswith("data.test.images: s3://no-such-bucket/images: ")
    assert "has no such bucket" in message
    data["images"] = f"s3://{bucket}/nothing-here"
    assert "nothing-here holds no object; give" in refused(make_job(f"s3://{bucket}/trees", test=data), out)
    assert "does not exist" in refused(make_job(f"s3://{bucket}/other"), out)
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    assert "model.weights: " in refused(make_job(f"s3://{bucket}/trees"), out)


def test_the_size_limit_holds_before_the_images_are_downloaded(bucket: str, out: Path, tmp_path: Path) -> None:
    job = make_job(f"s3://{bucket}/trees", max_download="30 kB")
    assert "more than the limit of 30.0 kB" in refused(job, out)
    assert len(files_below(tmp_path / "cache")) == 2  # the annotations


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 64 kB."""
    place = tmp_path / "small"
    place.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(place)]
    done = subprocess.run(mount, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        pytest.skip(f"a small tmpfs cannot be mounted here: {done.stderr.strip()}")
    yield place
    subprocess.run(["umount", str(place)], check=True)


def test_a_disk_that_is_too_small(job: Job, small_disk: Path) -> None:
    out = small_disk / "bundle"
    write_split(Path(job.data.train.annotations).parent, "train", 9)
    message = refused(job, out)
    assert message.startswith(f"{out}: no space left: ")
    assert "65.5 kB free" in message


def test_a_disk_that_fills_up_on_the_way(job: Job, small_disk: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out = small_disk / "bundle"
    write_split(Path(job.data.train.annotations).parent, "train", 9)
    # Another program takes the space after it was found to be there.
    monkeypatch.setattr(run_module.Plan, "total_bytes", 10)
    assert refused(job, out).startswith(f"{out}: no space left: 10 B needed, ")
    assert list(small_disk.iterdir()) == []


FETCH_AND_DIE = """
import os, signal, sys
from pathlib import Path
from components.core.contracts.job import Job
from components.fetch import run

fatal, seen = int(sys.argv[3]), 0

def die_at(event, args):
    global seen
    if event in ("open", "os.mkdir", "os.rename", "shutil.copyfile", "os.link") and sys.argv[2] in str(args):
        seen += 1
        if seen == fatal:
            os.kill(os.getpid(), signal.SIGKILL)

sys.addaudithook(die_at)
run.run_fetch(Job.model_validate_json(Path(sys.argv[1]).read_text()), Path(sys.argv[2]) / "bundle")
"""


def test_a_killed_fetch_leaves_nothing_and_the_next_one_heals(job: Job, out: Path, tmp_path: Path) -> None:
    (tmp_path / "job.json").write_text(job.model_dump_json())
    for fatal in (2, 5, 9, 14):
        command = [sys.executable, "-c", FETCH_AND_DIE, str(tmp_path / "job.json"), str(out.parent), str(fatal)]
        done = subprocess.run(
            command, capture_output=True, text=True, check=False, env=os.environ | {"PYTHONPATH": ROOT}
        )
        assert done.returncode == -9, done.stderr
        assert not out.exists()
    assert files_below(out.parent)  # what the killed ones left, hidden
    run_fetch(job, out)
    assert files_below(out) == BUNDLE
    assert [path.name for path in out.parent.iterdir()] == ["bundle"]
