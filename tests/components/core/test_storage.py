from pathlib import Path

import pytest

from components.core.errors import UserError
from components.core.storage import check_size, is_remote, local_path, materialize


@pytest.mark.parametrize(
    ("uri", "path"),
    [
        ("/a/b", "/a/b"),
        ("a/b", "a/b"),
        ("file:///a/b", "/a/b"),
        ("file://localhost/a/b", "/a/b"),
        ("file:///a%20b/100%25", "/a b/100%"),
        ("file:///a#b?c", "/a#b?c"),
    ],
)
def test_local_path(uri: str, path: str) -> None:
    assert local_path(uri) == Path(path)
    assert not is_remote(uri)


@pytest.mark.parametrize(
    ("uri", "reason"),
    [
        ("http://host/a", "http:// is not supported; give a path, file:///path or s3://bucket/key"),
        ("gs://bucket/a", "gs:// is not supported"),
        ("file://a/b", "names the host 'a'; write file:///path with three slashes"),
        ("file://", "three slashes"),
        ("", "is no path"),
        ("a\0b", "is no path"),
    ],
)
def test_what_is_no_local_path(uri: str, reason: str) -> None:
    with pytest.raises(UserError, match=reason.replace("?", r"\?")):
        local_path(uri)


def test_materialize_gives_local_things_as_they_are(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("1")
    assert materialize(str(tmp_path / "a")) == tmp_path / "a"
    assert materialize(tmp_path.as_uri(), max_bytes=0) == tmp_path
    with pytest.raises(UserError, match="missing does not exist"):
        materialize(str(tmp_path / "missing"))


def test_the_size_limit_is_inclusive() -> None:
    check_size("x", 10, 10)
    check_size("x", 10, None)
    with pytest.raises(UserError, match=r"x is 11 B, more than the limit of 10 B; raise the limit"):
        check_size("x", 11, 10)
