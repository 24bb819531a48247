"""Checkpoints: all that a run must know to go on as if it had never stopped, in one file that is there whole or not at all."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import torch

from bindery.disk import to_disk
from training.recipe import RecipeError

_PATTERN = "step-*.pt"


class Checkpoints:
    """The checkpoints of one run, in a directory: `step-00000120.pt`, the newest two."""

    def __init__(self, directory: Path, *, keep: int = 2) -> None:
        self.directory = directory
        self._keep = keep

    def save(self, step: int, state: dict[str, Any]) -> Path:
        """Write ``state`` (tensors, numbers, texts, lists and dicts of them) and remove what is older than the newest ones."""
        self.directory.mkdir(parents=True, exist_ok=True)
        path = self.directory / f"step-{step:08d}.pt"
        unfinished = path.with_suffix(".unfinished")
        with unfinished.open("wb") as file:
            torch.save(state, file)
        to_disk(unfinished)
        unfinished.replace(path)  # a kill before this line leaves the older checkpoints, one after it leaves this one
        to_disk(self.directory)  # the new name, too, or a power cut could bring the old listing back
        for old in self._paths()[: -self._keep]:
            old.unlink()
        return path

    def newest(self) -> tuple[Path, dict[str, Any]] | None:
        """The newest checkpoint, or None. Raises `RecipeError` when it cannot be read: an older one is then the user's to choose."""
        paths = self._paths()
        if not paths:
            return None
        try:
            return paths[-1], torch.load(paths[-1], map_location="cpu", weights_only=True)
        except (OSError, RuntimeError, EOFError, pickle.UnpicklingError) as error:
            raise RecipeError(f"{paths[-1]} cannot be read: {error}; remove it to go on from the one before") from error

    def clear(self) -> None:
        """Remove all of them."""
        for path in self._paths():
            path.unlink()

    def _paths(self) -> list[Path]:
        return sorted(self.directory.glob(_PATTERN))
