"""The frozen text tower, as training sees it: texts in, unit vectors out, each text computed once."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from bindery.prepare.tokens import TextTokenizer
from bindery.runtime.collate import collate
from bindery.spec import TextSpec
from training.towers.package import TowerPackage, TowerPackageError

_CHUNK = 64
_REMEMBERED = 200_000
"""Texts; 300 MB at 384 values. Larger sets of captions are computed again now and then."""


class FrozenText:
    """Vectors of texts by a tower that is never trained, so they can be remembered."""

    def __init__(self, package: TowerPackage, *, device: str = "cpu") -> None:
        if not isinstance(package.spec, TextSpec) or package.tokenizer is None:
            raise TowerPackageError(f"{package.directory} is not a text tower")
        self._spec = package.spec
        self._tokenizer = TextTokenizer(package.tokenizer, package.spec)
        self._tower = package.module().requires_grad_(False).to(device)
        self._device = device
        self._known: dict[str, Tensor] = {}
        self._mates: dict[str, tuple[str, ...]] = {}
        """Text → the texts that it was computed with, itself among them: its last bits depend on them."""

    def vectors(self, texts: Sequence[str]) -> Tensor:
        """``(n, d)`` float32 unit rows."""
        if len(self._mates) > _REMEMBERED:
            self._mates.clear()
            self._known.clear()
        new = [text for text in dict.fromkeys(texts) if text not in self._mates]
        for start in range(0, len(new), _CHUNK):
            chunk = tuple(new[start : start + _CHUNK])
            self._mates.update(dict.fromkeys(chunk, chunk))
        for text in texts:
            if text not in self._known:
                mates = self._mates[text]
                self._known.update(zip(mates, self._compute(mates), strict=True))
        return torch.stack([self._known[text] for text in texts])

    def state(self) -> list[list[str]]:
        """Which texts were computed together so far. With it, a resumed run computes each of them as it was, bit for bit."""
        return [list(chunk) for chunk in dict.fromkeys(self._mates.values())]

    def restore(self, state: Sequence[Sequence[str]]) -> None:
        self._known.clear()
        self._mates = {text: tuple(chunk) for chunk in state for text in chunk}

    def arrays(self, texts: Sequence[str]) -> np.ndarray:
        return self.vectors(texts).cpu().numpy()

    @torch.no_grad()
    def _compute(self, texts: Sequence[str]) -> Tensor:
        batch = collate([self._tokenizer.encode(text).tensors for text in texts], self._spec.pad_id)
        return self._tower(**{name: torch.from_numpy(array).to(self._device) for name, array in batch.items()})
