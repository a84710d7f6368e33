"""The report card of new data: every check with what was found, what is allowed and what it means."""

from enum import StrEnum
from pathlib import Path

from pydantic import Field

from components.core import formats
from components.core.contracts.base import Contract
from components.core.contracts.dataset import SplitStatistics
from components.core.files import write_bytes_atomic

CARD, PAGE = "data_card.json", "data_card.md"


class Grade(StrEnum):
    """Of one check."""

    OK = "ok"
    NOTED = "noted"
    REFUSED = "refused"


class Check(Contract):
    """One line of the card."""

    name: str
    grade: Grade
    found: str
    allowed: str = ""
    reason: str = Field(default="", description="why it is refused or noted, for a person")


class DataCard(Contract):
    """`data_card.json`."""

    champion: str
    checks: list[Check]
    train: SplitStatistics
    test: SplitStatistics

    @property
    def refusals(self) -> list[str]:
        """Why nothing is trained; empty if the data can be used."""
        return [check.reason or check.found for check in self.checks if check.grade is Grade.REFUSED]

    def write(self, folder: Path) -> None:
        """Writes the card as JSON and as Markdown."""
        folder.mkdir(parents=True, exist_ok=True)
        write_bytes_atomic(folder / CARD, self.model_dump_json(indent=2).encode())
        write_bytes_atomic(folder / PAGE, markdown(self).encode())


def markdown(card: DataCard) -> str:
    """A page of a table."""
    verdict = "; ".join(card.refusals) if card.refusals else "the data can be trained on"
    known = f"Compared with what version {formats.markdown(card.champion)} was trained on"
    rows = []
    for check in card.checks:
        cells = (check.name, str(check.grade), check.found, check.allowed, check.reason)
        rows.append(f"| {' | '.join(map(formats.markdown, cells))} |")
    return "\n".join(
        [
            "# New data",
            "",
            f"{known}: {formats.markdown(verdict)}.",
            "",
            "| check | | found | allowed | |",
            "|---|---|---|---|---|",
            *rows,
            "",
        ]
    )
