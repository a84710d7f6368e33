"""Model files made to run code, to write elsewhere, or to fill the memory: refused, and nothing happens."""

import contextlib
import io
import os
import pickle
import tarfile
import zipfile
from pathlib import Path

import pytest
import torch
from PIL import Image

from components.core.errors import UserError
from components.core.models import read_state_dict
from components.core.programs import load_program
from components.fetch.run import possible_sizes

BOMB = 200_000_000


class Payload:
    """What an attacker puts into a checkpoint."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self):
        return os.system, (f"touch {self.mark}",)


def refusal(load, path: Path) -> str:
    before = set(path.parent.parent.rglob("*"))
    with pytest.raises(UserError) as caught:
        load(path)
    assert str(caught.value).isprintable()
    assert set(path.parent.parent.rglob("*")) == before, "a file appeared"
    return str(caught.value)


def rezipped(source: Path, target: Path, extra: dict[str, bytes], compression: int = zipfile.ZIP_STORED) -> Path:
    """The archive with further members, or others in their place."""
    with zipfile.ZipFile(source) as old, zipfile.ZipFile(target, "w", compression) as new:
        root = old.namelist()[0].split("/")[0]
        added = {name.replace("ROOT", root): content for name, content in extra.items()}
        for member in old.infolist():
            if member.filename not in added:
                new.writestr(member.filename, old.read(member))
        for name, content in added.items():
            new.writestr(name, content)
    return target


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """The folder that the files are in; what lies beside it must stay as it is."""
    place = tmp_path / "models"
    place.mkdir()
    return place


@pytest.fixture
def weights(folder: Path) -> Path:
    torch.save({"w": torch.arange(4.0)}, folder / "good.pt")
    return folder / "good.pt"


@pytest.fixture
def program(folder: Path) -> Path:
    exported = torch.export.export(torch.nn.Linear(2, 2).eval(), (torch.zeros(1, 2),))
    torch.export.save(exported, folder / "good.pt2")
    return folder / "good.pt2"


@pytest.mark.parametrize("protocol", [0, 2, 5])
def test_a_bare_pickle_named_weights_is_never_run(folder: Path, protocol: int) -> None:
    for name in ("w.pt", "w.pth", "w.safetensors"):
        (folder / name).write_bytes(pickle.dumps({"w": Payload(folder.parent / "owned")}, protocol))
        assert name in refusal(read_state_dict, folder / name)


def test_a_pickle_inside_of_a_program_is_never_run(program: Path, folder: Path) -> None:
    payload = io.BytesIO()
    torch.save({"w": Payload(folder.parent / "owned")}, payload)
    for place in ("ROOT/data/weights/extra.pt", "ROOT/data/sample_inputs/model.pt"):
        bad = rezipped(program, folder / "bad.pt2", {place: payload.getvalue()})
        assert "never run" in refusal(load_program, bad)


@pytest.mark.parametrize("name", ["../../owned", "/tmp/../owned", "ROOT/../../owned", "..\\owned"])
def test_names_in_archives_that_climb_out_write_nothing(weights: Path, program: Path, folder: Path, name: str) -> None:
    before = set(folder.parent.rglob("*"))
    bad_weights = rezipped(weights, folder / "bad.pt", {name: b"x"})
    bad_program = rezipped(program, folder / "bad.pt2", {name: b"x"})
    for load, path in ((read_state_dict, bad_weights), (load_program, bad_program)):
        with contextlib.suppress(UserError):
            load(path)
    assert set(folder.parent.rglob("*")) - before == {bad_weights, bad_program}
    assert not Path("/owned").exists()


def test_a_tar_of_old_torch_is_not_unpacked(folder: Path) -> None:
    secret = folder.parent / "secret"
    secret.write_text("of another user")
    with tarfile.open(folder / "w.pt", "w") as archive:
        for name in ("sys_info", "pickle", "storages", "tensors", "../../owned"):
            member = tarfile.TarInfo(name)
            if name == "storages":
                member.type, member.linkname = tarfile.SYMTYPE, str(secret)
                archive.addfile(member)
            else:
                content = pickle.dumps(Payload(folder.parent / "owned"))
                member.size = len(content)
                archive.addfile(member, io.BytesIO(content))
    assert "w.pt" in refusal(read_state_dict, folder / "w.pt")


def test_a_small_file_that_unpacks_to_a_large_one_is_refused_unread(weights: Path, program: Path, folder: Path) -> None:
    zeros = bytes(BOMB)
    for load, good, place in (
        (read_state_dict, weights, "ROOT/data/1"),
        (load_program, program, "ROOT/extra/bomb.json"),
    ):
        bad = rezipped(good, folder / f"bomb{good.suffix}", {place: zeros}, zipfile.ZIP_DEFLATED)
        assert bad.stat().st_size < BOMB / 100
        assert "is a compressed archive" in refusal(load, bad)


def test_a_list_that_claims_more_than_the_file_holds_is_refused(weights: Path, folder: Path) -> None:
    """Members that overlap: each is stored, and together they are far more than there is."""
    content = weights.read_bytes()
    with zipfile.ZipFile(weights) as archive:
        members = archive.infolist()
        start = archive.start_dir
    many = io.BytesIO()
    with zipfile.ZipFile(many, "w") as new:
        new.fp.write(content[:start])  # type: ignore[union-attr]
        new.start_dir = start
        largest = max(members, key=lambda member: member.file_size)
        for number in range(2000):
            again = zipfile.ZipInfo(f"copy{number}")
            again.header_offset, again.CRC = largest.header_offset, largest.CRC
            again.file_size = again.compress_size = 1_000_000
            new.filelist.append(again)
        new._didModify = True
    (folder / "overlap.pt").write_bytes(many.getvalue())
    assert "is a compressed archive" in refusal(read_state_dict, folder / "overlap.pt")


def test_good_files_still_load(weights: Path, program: Path) -> None:
    assert read_state_dict(weights)["w"].tolist() == [0, 1, 2, 3]
    assert load_program(program)(torch.zeros(1, 2)).shape == (1, 2)


def test_an_image_of_too_many_pixels_is_no_image(folder: Path) -> None:
    Image.new("1", (20_000, 20_000)).save(folder / "bomb.png")
    assert (folder / "bomb.png").stat().st_size < 1_000_000
    assert possible_sizes(folder / "bomb.png") == ()
