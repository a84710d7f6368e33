"""Batches in an order that depends on the seed and the epoch alone.

It is the same with any number of processes and workers, and after an interruption.
"""

import hashlib
import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch.utils.data import DataLoader, Dataset

from components.core.errors import UserError


@dataclass(frozen=True)
class Share:
    """Which part of every batch this process trains on."""

    rank: int = 0
    world: int = 1


class Batches(Protocol):
    """What a training loop reads."""

    def __len__(self) -> int:
        """Batches of an epoch."""

    def epoch(self, number: int, first: int = 0) -> Iterator[Any]:
        """The batches of an epoch from the `first` on, always the same ones in the same order."""

    def order(self, number: int) -> str:
        """A digest of that order: it tells whether the data is what it was before an interruption."""


Loader = Callable[[Share], Batches]
"""Gives a process its share of the batches."""
Make = Callable[[int, random.Random], Any]
"""Reads, and alters at random, the sample of an index; draws from the generator that it is given and from no other."""


@dataclass(frozen=True)
class Shuffled:
    """Every epoch in another order; the last batch of an epoch is filled up with its first samples.

    Args:
        count: how many samples there are.
        make: reads one.
        collate: a list of samples -> a batch.
        batch: samples of a batch, over all processes together.
        seed: of the order and of `make`'s draws.
        workers: processes that read ahead.
        share: which part of every batch this process gets.
    """

    count: int
    make: Make
    collate: Callable[[list[Any]], Any]
    batch: int
    seed: int
    workers: int = 0
    share: Share = Share()

    def __post_init__(self) -> None:
        if self.count < 1:
            raise UserError("there is no sample to train on; give more data in data.train")
        if self.batch % self.share.world:
            raise UserError(
                f"training.batch {self.batch} cannot be shared by {self.share.world} processes alike; "
                f"give a multiple of {self.share.world}"
            )

    def __len__(self) -> int:
        """Batches of an epoch."""
        return -(-self.count // self.batch)

    def epoch(self, number: int, first: int = 0) -> Iterator[Any]:
        """See `Batches.epoch`."""
        size = self.batch // self.share.world
        start = self.share.rank * size
        order = self._order(number)
        shares = [order[one * self.batch + start : one * self.batch + start + size] for one in range(first, len(self))]
        loader = DataLoader(
            _Epoch(self.make, self.seed, number),
            batch_sampler=shares,
            collate_fn=self.collate,
            num_workers=self.workers,
            # Without one of its own it would draw from torch's global generator, and shift what comes after.
            generator=torch.Generator().manual_seed(self.seed),
        )
        return iter(loader)

    def order(self, number: int) -> str:
        """See `Batches.order`."""
        return hashlib.sha256(repr((self.batch, self._order(number))).encode()).hexdigest()

    def _order(self, number: int) -> list[int]:
        order = list(range(self.count))
        random.Random(f"order {self.seed} {number}").shuffle(order)  # noqa: S311
        padded = len(self) * self.batch
        return (order * -(-padded // self.count))[:padded]


class _Epoch(Dataset[Any]):
    def __init__(self, make: Make, seed: int, number: int) -> None:
        self._make, self._seed, self._number = make, seed, number

    def __getitem__(self, index: int) -> Any:
        # One generator a sample and epoch: whoever reads it, and whatever was read before, it comes out the same.
        return self._make(index, random.Random(f"sample {self._seed} {self._number} {index}"))  # noqa: S311


def held_back(names: Sequence[str], share: float, seed: int) -> tuple[list[int], list[int]]:
    """Splits samples into those to train on and those to judge by.

    Which side a sample is on depends on its name and the seed, so that adding samples moves few of the others.

    Args:
        names: one for each sample.
        share: of the samples to hold back; at least one is, and at least one is not.
        seed: another seed, another split.

    Returns:
        Indices to train on and indices held back, each in order.

    Raises:
        UserError: there are fewer than two samples.
    """
    if len(names) < 2:
        raise UserError(f"data.train has {len(names)} samples; training needs at least 2: one is held back to judge by")
    digests = [hashlib.sha256(f"{seed}\0{name}".encode("utf-8", "surrogateescape")).hexdigest() for name in names]
    count = min(max(round(share * len(names)), 1), len(names) - 1)
    back = set(sorted(range(len(names)), key=lambda index: digests[index])[:count])
    return [index for index in range(len(names)) if index not in back], sorted(back)
