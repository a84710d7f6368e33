import errno
import json
import multiprocessing
import os
import resource
import signal
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from components.core import files
from components.core.errors import UserError
from components.core.files import (
    confined,
    link_or_copy,
    room_for,
    scratch,
    sha256_file,
    sha256_tree,
    shortened,
    staging,
    unsafe_path,
    write_bytes_atomic,
    write_json_atomic,
)

FORK = multiprocessing.get_context("fork")
EMPTY_SHA256 = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"


def names_in(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_sha256_of_a_file(tmp_path: Path) -> None:
    (tmp_path / "empty").touch()
    assert sha256_file(tmp_path / "empty") == EMPTY_SHA256


def test_sha256_of_a_tree_is_about_names_and_contents(tmp_path: Path) -> None:
    def tree(name: str, contents: dict[str, str]) -> str:
        for path, text in contents.items():
            (tmp_path / name / path).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / name / path).write_text(text)
        return sha256_tree(tmp_path / name)

    first = tree("a", {"x": "1", "d/y": "2"})
    assert tree("b", {"d/y": "2", "x": "1"}) == first
    os.utime(tmp_path / "b" / "x", (1, 1))
    assert sha256_tree(tmp_path / "b") == first
    assert len({first, tree("c", {"x": "2", "d/y": "1"}), tree("e", {"x": "1", "y": "2"}), tree("f", {"x": "1"})}) == 4


def test_atomic_write_replaces_and_leaves_no_other_file(tmp_path: Path) -> None:
    path = tmp_path / "card.json"
    write_json_atomic(path, {"a": 1})
    write_json_atomic(path, {"a": [1, 2]})
    assert json.loads(path.read_text()) == {"a": [1, 2]}
    assert names_in(tmp_path) == ["card.json"]


def test_atomic_write_that_fails_keeps_the_old_content(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "card.json"
    write_bytes_atomic(path, b"old")

    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(files.os, "fsync", full)
    with pytest.raises(OSError, match="No space"):
        write_bytes_atomic(path, b"new")
    assert path.read_bytes() == b"old"
    assert names_in(tmp_path) == ["card.json"]


PATHS = st.one_of(
    st.text(max_size=40),
    st.lists(st.sampled_from(["..", ".", "", "a", "b c", "ü", "\\", "~", "a" * 300]), max_size=6).map("/".join),
)


@given(PATHS)
def test_a_confined_path_is_below_its_root_or_refused(relative: str) -> None:
    root = Path("/some/root")
    try:
        path = confined(root, relative, "here")
    except UserError as error:
        assert unsafe_path(relative)
        assert str(error).isprintable()  # noqa: PT017
        return
    assert unsafe_path(relative) is None
    normal = os.path.normpath(path)
    assert normal.startswith("/some/root/")
    assert normal == str(path)
    os.fsencode(path)


@pytest.mark.parametrize(
    "relative", ["../x", "a/../../x", "/etc/passwd", "..", "a\\..\\b", "", "a//b", "./a", "a/.", "x\0"]
)
def test_paths_that_are_refused(tmp_path: Path, relative: str) -> None:
    with pytest.raises(UserError, match=r"model\.onnx: the path"):
        confined(tmp_path, relative, "model.onnx")


@given(st.text(max_size=400))
def test_shortened_text_is_one_printable_line(text: str) -> None:
    assert shortened(text).isprintable()
    assert len(shortened(text)) <= 130


def test_staging_appears_whole(tmp_path: Path) -> None:
    target = tmp_path / "deep" / "out"
    with staging(target, replace=True) as folder:
        (folder / "a").write_text("1")
        assert not target.exists()
    assert (target / "a").read_text() == "1"
    assert names_in(target.parent) == ["out"]


def _fail_in_staging(target: Path) -> None:
    with staging(target, replace=True) as folder:
        (folder / "a").write_text("1")
        raise ZeroDivisionError


def test_staging_that_fails_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(ZeroDivisionError):
        _fail_in_staging(tmp_path / "out")
    assert names_in(tmp_path) == []


@pytest.mark.parametrize(("replace", "expected"), [(True, ["new"]), (False, ["old"])])
def test_staging_over_a_folder_that_is_there(tmp_path: Path, replace: bool, expected: list[str]) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "old").touch()
    with staging(tmp_path / "out", replace=replace) as folder:
        (folder / "new").touch()
    assert names_in(tmp_path / "out") == expected
    assert names_in(tmp_path) == ["out"]


def _hold_scratch(folder: Path, ready: "multiprocessing.connection.Connection") -> None:
    with scratch(folder) as mine:
        (mine / "half").write_text("half")
        ready.send(mine.name)
        signal.pause()


def test_scratch_of_a_killed_process_is_removed_and_of_a_living_one_kept(tmp_path: Path) -> None:
    ours, theirs = FORK.Pipe()
    processes = [FORK.Process(target=_hold_scratch, args=(tmp_path, theirs)) for _ in range(2)]
    for process in processes:
        process.start()
    names = {ours.recv() for _ in processes}
    assert set(names_in(tmp_path)) == names
    processes[0].kill()
    processes[0].join()
    with scratch(tmp_path) as mine:
        left = set(names_in(tmp_path)) - {mine.name}
        assert len(left) == 1
    processes[1].kill()
    processes[1].join()
    with scratch(tmp_path) as mine:
        assert names_in(tmp_path) == [mine.name]
    assert names_in(tmp_path) == []


def _scratch_many(folder: Path, count: int) -> None:
    for _ in range(count):
        with scratch(folder) as mine:
            (mine / "file").write_text("1")
            assert (mine / "file").read_text() == "1"


def test_scratch_folders_of_many_processes_do_not_disturb_one_another(tmp_path: Path) -> None:
    processes = [FORK.Process(target=_scratch_many, args=(tmp_path, 100)) for _ in range(6)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    assert [process.exitcode for process in processes] == [0] * 6
    assert names_in(tmp_path) == []


def test_no_room_is_said_before_any_work(tmp_path: Path) -> None:
    expected = rf"{tmp_path}/new/out: no space left: 1000\d+ GB needed, .* free"
    with pytest.raises(UserError, match=expected), room_for(tmp_path / "new" / "out", 10**19):
        pytest.fail("worked all the same")


def _write_over_the_limit(folder: Path, result: "multiprocessing.connection.Connection") -> None:
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))
    try:
        with room_for(folder, 10), staging(folder / "out", replace=True) as work:
            (work / "large").write_bytes(b"x" * 100_000)
    except UserError as error:
        result.send(str(error))
    result.close()


def test_a_disk_that_fills_up_is_one_line_and_nothing_is_left(tmp_path: Path) -> None:
    ours, theirs = FORK.Pipe()
    process = FORK.Process(target=_write_over_the_limit, args=(tmp_path, theirs))
    process.start()
    process.join()
    assert ours.poll()
    message = ours.recv()
    assert message.startswith(f"{tmp_path}: no space left: 10 B needed")
    assert "\n" not in message
    assert names_in(tmp_path) == []


def test_a_folder_that_cannot_be_written(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="somewhere: Read-only file system; give a folder"), room_for(tmp_path, 1):
        raise OSError(errno.EROFS, "Read-only file system", "somewhere")
    with pytest.raises(OSError, match="other"), room_for(tmp_path, 1):
        raise OSError(errno.EIO, "other")


def test_link_or_copy_across_file_systems(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a").write_text("1")
    link_or_copy(tmp_path / "a", tmp_path / "d" / "b", "x")
    assert (tmp_path / "d" / "b").samefile(tmp_path / "a")

    def no_link(*_: object) -> None:
        raise OSError(errno.EXDEV, "Invalid cross-device link")

    monkeypatch.setattr(files.os, "link", no_link)
    link_or_copy(tmp_path / "a", tmp_path / "d" / "c", "x")
    assert (tmp_path / "d" / "c").read_text() == "1"
    assert not (tmp_path / "d" / "c").samefile(tmp_path / "a")


def test_a_name_that_is_a_file_and_a_folder(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("1")
    link_or_copy(tmp_path / "a", tmp_path / "t" / "x", "s3://b/k")
    with pytest.raises(UserError, match="s3://b/k: 'y' is both a file and a folder"):
        link_or_copy(tmp_path / "a", tmp_path / "t" / "x" / "y", "s3://b/k")
