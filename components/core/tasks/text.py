"""Text classification: a text through the model's own tokenizer, cut or padded to a fixed length; logits out."""

from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from components.core.contracts.job import Preprocess
from components.core.errors import UserError
from components.core.tasks.adapter import Inputs
from components.core.tasks.labelled import LabelAdapter, LabelledSplit, read_labelled

TOKENIZER = "tokenizer.json"
"""Name of the tokenizer in a bundle's `model/`."""


class TextAdapter(LabelAdapter):
    """See `TaskAdapter`.

    Args:
        input_shape: [N, tokens].
        preprocess: unused but for its `tokenizer`, which `fetch` has put into the bundle.
        bundle: `fetch`'s folder; None where only outputs are to be understood.
    """

    inputs: tuple[str, ...] = ("input_ids", "attention_mask", "token_type_ids")
    noun: str = "text"

    def __init__(self, input_shape: Sequence[int], preprocess: Preprocess, bundle: Path | None) -> None:  # noqa: ARG002
        self._tokens = input_shape[1]
        self._bundle = bundle

    def read(self, annotations: Path, media: Path) -> LabelledSplit:
        """See `TaskAdapter.read`."""
        return read_labelled(annotations, media, str)

    def encode(self, raw: str) -> tuple[Inputs, None]:
        """See `TaskAdapter.encode`: a text -> token ids, attention mask and token types, each int64 [1, tokens]."""
        encoding = self._tokenizer.encode(raw)
        columns = (encoding.ids, encoding.attention_mask, encoding.type_ids)
        return {name: np.asarray([column], np.int64) for name, column in zip(self.inputs, columns, strict=True)}, None

    @cached_property
    def _tokenizer(self) -> Any:
        if self._bundle is None:
            raise UserError("a text can only be read with the bundle's tokenizer; give the folder of `hasten fetch`")
        return open_tokenizer(self._bundle / "model" / TOKENIZER, self._tokens)


def open_tokenizer(path: Path, tokens: int) -> Any:
    """A `tokenizer.json` of Hugging Face's tokenizers, made to cut and pad at the end to so many tokens.

    The padding token is the file's own; without one in it, the token named ``[PAD]`` or ``<pad>``, else number 0.

    Raises:
        UserError: the file is missing or no tokenizer.
    """
    from tokenizers import Tokenizer

    try:
        tokenizer = Tokenizer.from_file(str(path))
    except Exception as error:  # the library raises plain exceptions
        words = " ".join(str(error).split())[:200]
        raise UserError(
            f"preprocess.tokenizer: {path.name} cannot be read ({words}); give a tokenizer.json of Hugging Face "
            "tokenizers"
        ) from error
    named = [(token, tokenizer.token_to_id(token)) for token in ("[PAD]", "<pad>")]
    token, number = next(((token, number) for token, number in named if number is not None), ("[PAD]", 0))
    own = tokenizer.padding or {}
    tokenizer.enable_truncation(tokens)
    tokenizer.enable_padding(
        length=tokens,
        pad_id=own.get("pad_id", number),
        pad_token=own.get("pad_token", token),
        pad_type_id=own.get("pad_type_id", 0),
    )
    return tokenizer
