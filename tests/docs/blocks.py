"""Fenced blocks of the documentation and how each is to be tested.

The info string says it: ``sh run`` is run, ``sh check`` needs a cluster, a network or minutes and is held against the
real command line, ``python run`` is run as a script, ``yaml job`` and ``yaml fleet`` must be files that hasten takes.
"""

import re
import shlex
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parent.parent.parent
PAGES = sorted((ROOT / "docs").glob("*.md"))
KINDS = {"sh run", "sh check", "python run", "yaml job", "yaml fleet", ""}
_FENCE = re.compile(r"^```(?P<info>.*)\n(?P<text>(?:.*\n)*?)```$", re.MULTILINE)


@dataclass(frozen=True)
class Block:
    page: str
    line: int
    info: str
    text: str


def blocks(page: Path) -> list[Block]:
    content = page.read_text()
    found = []
    for match in _FENCE.finditer(content):
        line = content[: match.start()].count("\n") + 1
        found.append(Block(page.name, line, match["info"].strip(), match["text"]))
    return found


def commands(block: Block) -> list[list[str]]:
    """The commands of a shell block as words, without variables before them and what stands behind a pipe."""
    lines = re.sub(r"\\\n", " ", block.text).splitlines()
    parts = [part for line in lines if line.strip() for part in line.split(" | ")]
    found = []
    for part in parts:
        words = shlex.split(part, comments=True)
        while words and re.fullmatch(r"[A-Z_]+=.*", words[0]):
            words = words[1:]
        if words:
            found.append(words)
    return found
