"""The frozen text tower, as training sees it: texts in, unit vectors out, each text computed once.

It is a tower package, or the text graph of a bundle: then what is trained enters the very space that the bundle serves.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from bindery.bundle import Bundle, find_bundle, open_bundle
from bindery.prepare.tokens import TextTokenizer
from bindery.runtime.collate import collate
from bindery.spec import TextSpec
from training.towers.package import TowerPackage, TowerPackageError, load_tower

BUNDLE = "bundle:"
"""What stands in front of a bundle's name where a recipe may also name a package."""

_CHUNK = 64
_REMEMBERED = 200_000
"""Texts; 300 MB at 384 values. Larger sets of captions are computed again now and then."""


class FrozenText(ABC):
    """Vectors of texts by a tower that is never trained, so they can be remembered."""

    space: str | None = None
    """The space of the bundle that it is part of; None: it is a package."""

    def __init__(self) -> None:
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

    @abstractmethod
    def _compute(self, texts: Sequence[str]) -> Tensor:
        """``(n, d)`` float32 unit rows, all computed now."""


class PackageText(FrozenText):
    """By a tower package."""

    def __init__(self, package: TowerPackage, *, device: str = "cpu") -> None:
        super().__init__()
        if not isinstance(package.spec, TextSpec) or package.tokenizer is None:
            raise TowerPackageError(f"{package.directory} is not a text tower")
        self._spec = package.spec
        self._tokenizer = TextTokenizer(package.tokenizer, package.spec)
        self._tower = package.module().requires_grad_(False).to(device)
        self._device = device

    @torch.no_grad()
    def _compute(self, texts: Sequence[str]) -> Tensor:
        batch = collate([self._tokenizer.encode(text).tensors for text in texts], self._spec.pad_id)
        return self._tower(**{name: torch.from_numpy(array).to(self._device) for name, array in batch.items()})


class BundleText(FrozenText):
    """By the text graph of a bundle, as it is served."""

    def __init__(self, bundle: Bundle, *, device: str = "cpu") -> None:
        from bindery.embedder import Embedder  # here: it opens graphs, and most training does without a runtime

        super().__init__()
        self.space = bundle.manifest.space
        self._embedder = Embedder(bundle, device="cpu", threads=torch.get_num_threads())
        self._modality = bundle.text_modality()
        self._device = device

    def _compute(self, texts: Sequence[str]) -> Tensor:
        return torch.from_numpy(self._embedder.embed(self._modality, list(texts))).to(self._device)


def frozen_text(name: str, towers: Path, *, device: str = "cpu") -> FrozenText:
    """What a recipe names: a package in ``towers``, or `bundle:` and a bundle's name or directory.

    Raises `TowerPackageError`; `BinderyError` for a bundle that is not there or damaged.
    """
    if name.startswith(BUNDLE):
        return BundleText(open_bundle(find_bundle(name.removeprefix(BUNDLE))), device=device)
    return PackageText(load_tower(towers / name), device=device)
