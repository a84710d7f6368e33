"""What `fetch` brought, written beside it as `fetch_card.json`."""

from pathlib import Path

from pydantic import Field

from components.core.contracts.base import Contract

FETCH_CARD = "fetch_card.json"


class FetchedFile(Contract):
    """One file of the model."""

    file: str = Field(description="path in the bundle")
    source: str = Field(description="path or URI that it came from")
    sha256: str
    size_bytes: int


class FetchedSplit(Contract):
    """One split of the data."""

    annotations: FetchedFile | None = Field(
        description="the source's hash and size, before optional fields were filled in; null for class folders"
    )
    annotations_sha256: str = Field(description="of the file in the bundle")
    images_sha256: str = Field(description="over the names and contents of all images or recordings")
    images_source: str
    images: int = Field(description="images or recordings; 0 for texts")
    images_bytes: int
    samples: int = Field(default=0, description="what an accuracy counts: images, texts or recordings")
    boxes: int = Field(default=0, description="boxes with an area; the others were left out")
    categories: dict[int, str] = Field(description="class ids and names")
    warnings: dict[str, int] = Field(default_factory=dict, description="what was noticed, and how often")


class FetchedUnlabelled(Contract):
    """Samples without labels."""

    samples: int
    source: str = Field(description="field of the job and what it says")
    sha256: str = Field(description="over the names and contents of all of them")


class FetchedLessons(Contract):
    """What the rung `distill` needs beside the model and the labelled data."""

    files: list[FetchedFile] = Field(description="of the student and the teachers")
    unlabelled: FetchedUnlabelled | None = None


class FetchCard(Contract):
    """Everything that a run works on, with hashes."""

    model: list[FetchedFile] = Field(description="the model's own file first, then its external data")
    train: FetchedSplit
    test: FetchedSplit
    lessons: FetchedLessons | None = Field(default=None, description="where the job has `distill` or unlabelled data")
    shared_images: int = Field(description="samples of `test` that are byte for byte in `train` too; should be 0")
    total_bytes: int

    @staticmethod
    def read(bundle: Path) -> "FetchCard":
        """Reads the card of a bundle."""
        return FetchCard.model_validate_json((bundle / FETCH_CARD).read_text())
