"""What is remembered of a data set after its files have changed: counts, hashes and how its boxes are distributed."""

from pydantic import Field

from components.core.contracts.base import Contract


class SplitStatistics(Contract):
    """One detection split. Two of them can be compared without the images."""

    images: int
    boxes: int
    empty_images: int = Field(description="images without a box")
    categories: dict[int, str] = Field(description="category id -> name: the schema of the labels")
    histograms: dict[str, dict[str, int]] = Field(
        description="distribution -> bin -> how many boxes (or images) are in it; bins are fixed, so that they compare"
    )
    annotations_sha256: str = ""
    images_sha256: str = Field(default="", description="over the names and contents of all images")

    def same_files(self, other: "SplitStatistics") -> bool:
        """Whether both are of the very same annotations and images."""
        known = bool(self.annotations_sha256 and self.images_sha256)
        return known and (self.annotations_sha256, self.images_sha256) == (
            other.annotations_sha256,
            other.images_sha256,
        )
