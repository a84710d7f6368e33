"""Row 47: EmbeddingBag as a Loop, of both exporters."""

import warnings

import numpy as np
import torch
from surgery_cases import Case
from surgery_graphs import export
from torch import nn

WORDS, BAGS = 12, 4


class Bag(nn.Module):
    def __init__(self, mode, **options):
        super().__init__()
        self.bag = nn.EmbeddingBag(20, 5, mode=mode, **options)

    def forward(self, words, offsets):
        return self.bag(words, offsets)


class Weighted(nn.Module):
    def __init__(self):
        super().__init__()
        self.bag = nn.EmbeddingBag(20, 5, mode="sum")

    def forward(self, words, offsets, weights):
        return self.bag(words, offsets, weights)


class Sentences(nn.Module):
    """Bags of one size, in rows."""

    def __init__(self):
        super().__init__()
        self.bag = nn.EmbeddingBag(20, 5, mode="mean")

    def forward(self, words):
        return self.bag(words).tanh()


def examples():
    return torch.randint(0, 20, (WORDS,)), torch.tensor([0, 2, 5, 9])


def traced(module, *more, axes=None):
    names = ["words", "offsets", "weights"][: 2 + len(more)]
    return export(module, *examples(), *more, input_names=names, output_names=["y"], dynamic_axes=axes)


def dynamo(mode):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        program = torch.onnx.export(Bag(mode).eval(), examples(), dynamo=True, opset_version=18, verbose=False)
    return program.model_proto


def feeds(rng, words=WORDS, bags=BAGS, *, last=False):
    """Some bags may be empty."""
    inner = np.sort(rng.integers(0, words + 1, bags - 1))
    return {"words": rng.integers(0, 20, words), "offsets": np.r_[0, inner, np.full(int(last), words)]}


def weighted_feeds(rng):
    return feeds(rng) | {"weights": rng.random(WORDS, np.float32)}


def open_feeds(rng):
    return feeds(rng, int(rng.integers(3, 30)), int(rng.integers(1, 6)))


CASES = [
    *(
        Case(f"traced, {mode}", lambda mode=mode: traced(Bag(mode)), before="build", feeds=feeds)
        for mode in ("sum", "mean", "max")
    ),
    *(
        Case(f"dynamo, {mode}", lambda mode=mode: dynamo(mode), before="reject", feeds=feeds)
        for mode in ("sum", "mean", "max")
    ),
    Case("weights of the samples", lambda: traced(Weighted(), torch.rand(WORDS)), before="build", feeds=weighted_feeds),
    Case(
        "the last offset is given",
        lambda: export(
            Bag("sum", include_last_offset=True),
            examples()[0],
            torch.tensor([0, 2, 5, 9, 12]),
            input_names=["words", "offsets"],
            output_names=["y"],
        ),
        before="build",
        feeds=lambda rng: feeds(rng, last=True),
    ),
    Case(
        "bags of one size",
        lambda: export(Sentences(), torch.randint(0, 20, (3, 4)), input_names=["words"], output_names=["y"]),
        before="build",
        feeds=lambda rng: {"words": rng.integers(0, 20, (3, 4))},
    ),
    Case(
        "open numbers of words and bags",
        lambda: traced(Bag("mean"), axes={"words": {0: "words"}, "offsets": {0: "bags"}}),
        before="build",
        feeds=open_feeds,
    ),
]
