"""Text -> token ids: cleaned as the spec says, then the bundle's `tokenizer.json`, cut to the tower's length."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

import ftfy
import numpy as np
from tokenizers import Tokenizer

from bindery.decoded import Prepared
from bindery.errors import BundleDamaged, EmptyMedia, InvalidParameter
from bindery.spec import TextSpec

_BLANKS = re.compile(r"\s+")


class TextTokenizer:
    """Turns one text, or ids that a caller made, into ``input_ids`` ``(n,)`` int64 (and ``attention_mask``), not padded. Thread-safe."""

    def __init__(self, tokenizer_json: Path, spec: TextSpec) -> None:
        """Raises `BundleDamaged` when the file is not a tokenizer."""
        try:
            self._tokenizer = Tokenizer.from_file(str(tokenizer_json))
        except Exception as error:  # the Rust tokenizer raises plain Exception for a missing or malformed file
            raise BundleDamaged(f"{tokenizer_json.name} is not a readable tokenizer: {error}") from error
        # The file's own padding and length belong to some other program; the spec rules here.
        self._tokenizer.no_padding()
        self._tokenizer.no_truncation()
        self._spec = spec
        self._first, self._last = self._special_ids()

    @property
    def vocabulary_size(self) -> int:
        return int(self._tokenizer.get_vocab_size(with_added_tokens=True))

    def encode(self, text: str) -> Prepared:
        """Ids of a text, special ones included. Raises `InvalidParameter` for text that is not valid Unicode."""
        clean = clean_clip(text) if self._spec.cleanup == "ftfy_lower" else text
        try:
            ids = self._tokenizer.encode(clean).ids
        except (UnicodeError, TypeError) as error:
            raise InvalidParameter("the text holds half a surrogate pair, which is no Unicode character; send valid UTF-8") from error
        return self._prepared(ids)

    def encode_ids(self, ids: Sequence[int]) -> Prepared:
        """Ids made elsewhere with this vocabulary; the special first and last ids are added where they are missing.

        Raises `EmptyMedia`, `InvalidParameter`.
        """
        if not ids:
            raise EmptyMedia("the list of token ids is empty")
        for position, token in enumerate(ids):
            if not 0 <= token < self.vocabulary_size:
                raise InvalidParameter(
                    f"token id {token} at position {position} is outside this tokenizer's 0 to {self.vocabulary_size - 1}"
                )
        first = [] if self._first is None or ids[0] == self._first else [self._first]
        last = [] if self._last is None or ids[-1] == self._last else [self._last]
        return self._prepared([*first, *ids, *last])

    def _prepared(self, ids: Sequence[int]) -> Prepared:
        length = self._spec.context_length
        is_cut = len(ids) > length
        # The last id stays: a tower that pools at the end token must find one.
        kept = [*ids[: length - 1], ids[-1]] if is_cut else ids
        tensors = {"input_ids": np.asarray(kept, dtype=np.int64)}
        if self._spec.attention_mask:
            tensors["attention_mask"] = np.ones(len(kept), dtype=np.int64)
        return Prepared(tensors, {"tokens": float(len(kept))}, truncated=is_cut)

    def _special_ids(self) -> tuple[int | None, int | None]:
        frame = self._tokenizer.encode("").ids  # nothing but the special ids, if the tokenizer adds any
        return (frame[0], frame[-1]) if len(frame) >= 2 else (None, None)


def clean_clip(text: str) -> str:
    """The cleaning that CLIP was trained with: broken Unicode repaired, white space to single blanks, lower case."""
    return _BLANKS.sub(" ", ftfy.fix_text(text)).strip().lower()
