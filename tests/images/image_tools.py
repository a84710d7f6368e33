"""What the image tests do with buildah: a base without a registry, a build, and a process as a cluster would run it."""

import json
import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent.parent
SUITE = "bookworm"
PACKAGES = "python3,python3-venv,ca-certificates"
BASE = f"localhost/hasten-base:{SUITE}"
ARCHIVE = ROOT / ".hasten" / "images" / f"{SUITE}.tar"
"""The base, kept so that only the first run of a machine bootstraps it."""
TAG = "images-test"
FREE_BYTES = {"light": 3e9, "torch": 25e9}
"""What a build needs on the disk: both stages, and the base."""
_HOST_FILES = ("/etc/ssl/certs", "/etc/pip.conf")
"""Of this machine and lent to the build: certificates and where pip finds packages, as a proxy or mirror may want."""


def missing(name: str) -> str:
    """Why an image cannot be built here; nothing where it can."""
    if shutil.which("buildah") is None:
        return "buildah is not installed (Debian: apt-get install buildah debootstrap)"
    if os.geteuid() != 0:
        return "chroot isolation and a read-only root need root"
    if not _has_base() and not ARCHIVE.exists() and shutil.which("debootstrap") is None:
        return "debootstrap is not installed, and there is no base from an earlier run"
    free = shutil.disk_usage(json.loads(output("buildah", "info"))["store"]["GraphRoot"]).free
    if free < FREE_BYTES[name]:
        return f"{name} needs {FREE_BYTES[name] / 1e9:.0f} GB of disk to build; {free / 1e9:.0f} GB are free"
    return ""


def make_base() -> str:
    """Name of an image with Debian and its Python; bootstrapped by the first run, then taken from the archive."""
    if _has_base():
        return BASE
    ARCHIVE.parent.mkdir(parents=True, exist_ok=True)
    if not ARCHIVE.exists():
        tree, partial = ARCHIVE.with_suffix(".tree"), ARCHIVE.with_suffix(".partial")
        shutil.rmtree(tree, ignore_errors=True)
        run("debootstrap", "--variant=minbase", f"--include={PACKAGES}", SUITE, str(tree), time_limit=1800)
        shutil.rmtree(tree / "var/cache/apt/archives", ignore_errors=True)
        shutil.rmtree(tree / "var/lib/apt/lists", ignore_errors=True)
        run("tar", "-C", str(tree), "-cf", str(partial), ".")
        partial.rename(ARCHIVE)
        shutil.rmtree(tree)
    container = output("buildah", "from", "scratch").strip()
    try:
        run("buildah", "add", container, str(ARCHIVE), "/")
        run("buildah", "commit", container, BASE)
    finally:
        run("buildah", "rm", container)
    return BASE


def build(name: str, base: str) -> str:
    """Builds an image as `make images` does, without a daemon and without containers; its name.

    No layers are kept in between: of `torch` they are many GB.
    """
    lent = [f"--volume {path}:{path}:ro" for path in _HOST_FILES if Path(path).exists()]
    settings = {
        "HASTEN_BUILDER": "buildah",
        "HASTEN_REGISTRY": "localhost",
        "HASTEN_TAG": TAG,
        f"BASE_{name.upper()}": base,
        "BUILD_ARGS": " ".join(["--isolation chroot --network host --pull-never --layers=false", *lent]),
    }
    run("sh", "images/build.sh", name, environment=settings, time_limit=7200)
    return f"localhost/hasten-python-{name}:{TAG}"


def configuration(image: str) -> dict[str, Any]:
    """The image's OCI configuration: user, environment, labels."""
    described = json.loads(output("buildah", "inspect", "--type", "image", image))
    found: dict[str, Any] = described["OCIv1"]["config"]
    return found


class Pod:
    """A container's root as Kubernetes mounts it: read-only, with an `emptyDir` at /tmp, run as the image's user."""

    def __init__(self, image: str, data: Path) -> None:
        self._container = output("buildah", "from", "--pull-never", image).strip()
        self._root = output("buildah", "mount", self._container).strip()
        self._data, self._image = data, configuration(image)

    def __enter__(self) -> "Pod":
        return self

    def __exit__(self, *error: Any) -> None:
        run("buildah", "rm", self._container)

    def size(self) -> int:
        """Bytes of all files of the image, the base included; hard links once."""
        return int(output("du", "-s", "--bytes", "--one-file-system", self._root).split()[0])

    def __call__(self, *command: str, time_limit: float = 600, **variables: str) -> "subprocess.CompletedProcess[str]":
        """Runs a command; `data` is at /mnt, read-only."""
        mounts = """
            set -e
            mount --make-rprivate /
            mount --bind "$1" "$1" && mount -o remount,bind,ro "$1"
            mount -t tmpfs -o mode=1777 tmpfs "$1/tmp"
            mount --bind /proc "$1/proc" && mount --rbind /dev "$1/dev"
            mount --bind "$2" "$1/mnt" && mount -o remount,bind,ro "$1/mnt"
            root=$1 user=$3; shift 3
            exec chroot --userspec="$user" "$root" env -i --chdir=/tmp "$@"
        """
        environment = [*self._image["Env"], *(f"{key}={value}" for key, value in variables.items())]
        arguments = [self._root, str(self._data), self._image["User"], *environment, *command]
        return subprocess.run(
            ["unshare", "--mount", "sh", "-c", mounts, "sh", *arguments],
            capture_output=True,
            text=True,
            timeout=time_limit,
        )


def run(
    *command: str, environment: dict[str, str] | None = None, time_limit: float = 600
) -> "subprocess.CompletedProcess[str]":
    """Runs a command in the repository's root; its last words are the error's."""
    done = subprocess.run(
        command, cwd=ROOT, env={**os.environ, **(environment or {})}, capture_output=True, text=True, timeout=time_limit
    )
    assert done.returncode == 0, f"{' '.join(command[:4])}: {_tail(done.stdout)}\n{_tail(done.stderr)}"
    return done


def output(*command: str) -> str:
    """What a command prints."""
    return run(*command).stdout


def _has_base() -> bool:
    listed = json.loads(output("buildah", "images", "--json") or "null") or []
    return any(BASE in (image.get("names") or []) for image in listed)


def _tail(text: str, lines: int = 25) -> str:
    return "\n".join(text.splitlines()[-lines:])
