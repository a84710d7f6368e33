"""The languages sample: telephone announcements in English, French and Russian, 8 kHz.

Source: the Debian packages ``asterisk-core-sounds-{en,fr,ru}-wav`` 1.6.1-1 (CC-BY-SA-3.0 and CC-BY-3.0: Allison Smith,
June Wallack, Maxim Topal). Split by prompt: what is said in a test recording is said in no training recording, in no
language. Each language has one speaker, so that a model may tell the voices apart and not the languages.
"""

import csv
import hashlib
import io
import shutil
import tempfile
import wave
from pathlib import Path

from components.core.files import write_bytes_atomic
from pipelines.samples.packages import debian_package

VERSION = "1.6.1-1"
PACKAGES = {
    "en": "2be3ea287d83299d143815fa804f11179a75b7affd4a758b98b55f5afc18a35d",
    "fr": "8d4e1bc32ed5ba7fbda40841ca1825ed20cc6232724a473c90f8bb0e53e6073e",
    "ru": "ccbfaebfa450b7a9ddf644ae0f3d1e9017d5df7c0aebe816e946345589d38201",
}
"""Language -> sha256 of its package."""
_TEST = 4
"""One prompt in so many is in the test split."""
_NO_SPEECH = ("silence/", "tone", "beep", "monkeys", "weasels")


def prepare_languages(folder: Path) -> None:
    """Writes ``audio/<language>/*.wav``, ``train.csv`` and ``test.csv`` (file,label)."""
    if not all((folder / f"{split}.csv").exists() for split in ("train", "test")):
        with tempfile.TemporaryDirectory(prefix="hasten-") as temporary:
            for language, sha256 in PACKAGES.items():
                package = f"asterisk-core-sounds-{language}-wav={VERSION}"
                unpacked = debian_package(package, sha256, Path(temporary))
                copy_prompts(unpacked / "usr" / "share" / "asterisk" / "sounds", folder / "audio" / language)
        write_lists(folder)


def copy_prompts(source: Path, target: Path) -> None:
    """Copies the spoken prompts below `source`, named by their path in the language's folder; some files are empty."""
    for path in sorted(source.rglob("*.wav")):
        name = path.relative_to(source).as_posix().partition("/")[2]
        if path.is_symlink() or not name or any(part in name for part in _NO_SPEECH):
            continue
        with wave.open(str(path)) as recording:
            if not recording.getnframes():
                continue
        place = target / name.replace("/", "-")
        place.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, place)


def write_lists(folder: Path) -> None:
    """Writes the lists of the splits for what is in ``audio/``."""
    rows: dict[str, list[tuple[str, str]]] = {"train": [], "test": []}
    for path in sorted((folder / "audio").rglob("*.wav")):
        number = int(hashlib.sha256(path.name.encode()).hexdigest(), 16)
        split = "test" if number % _TEST == 0 else "train"
        rows[split].append((path.relative_to(folder / "audio").as_posix(), path.parent.name))
    for split, listed in rows.items():
        text = io.StringIO(newline="")
        csv.writer(text).writerows([("file", "label"), *listed])
        write_bytes_atomic(folder / f"{split}.csv", text.getvalue().encode())
