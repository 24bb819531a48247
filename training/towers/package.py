"""A tower package: the directory in which a trained tower travels from training to export.

tower.json           config, spec, logit_scale, prompts, provenance
weights.safetensors  the tower's parameters, by name
tokenizer.json       text towers only
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from safetensors.torch import load_file, save_file
from torch import Tensor

from bindery.spec import Spec, TextSpec
from training.towers.build import TowerConfig, build_tower
from training.towers.tower import Tower

DOCUMENT = "tower.json"
WEIGHTS = "weights.safetensors"
TOKENIZER = "tokenizer.json"


class TowerPackageError(ValueError):
    """The directory is no tower package, or its parts do not fit together. The message names the file."""


class _Document(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    config: TowerConfig
    spec: Spec
    logit_scale: float | None = Field(None, gt=0, description="multiplier of cosines, already exponentiated")
    min_similarity: float | None = Field(None, ge=-1, le=1, description="right labels are rarely less similar")
    prompts: tuple[str, ...] = ("{}",)
    provenance: dict[str, Any] = {}


@dataclass(frozen=True, slots=True)
class TowerPackage:
    """A package whose document was read; the weights are read by `module`."""

    directory: Path
    config: TowerConfig
    spec: Spec
    logit_scale: float | None
    prompts: tuple[str, ...]
    provenance: dict[str, Any]
    tokenizer: Path | None
    min_similarity: float | None = None

    def module(self) -> Tower:
        """The tower with its weights, float32, in eval mode. Raises `TowerPackageError` on any unknown, missing or misshapen tensor."""
        path = self.directory / WEIGHTS
        if not path.is_file():
            raise TowerPackageError(f"{path} is missing")
        return tower_with_weights(self.config, load_file(path), str(path))


def save_tower(
    directory: str | Path,
    tower: Tower,
    config: TowerConfig,
    spec: Spec,
    *,
    logit_scale: float | None = None,
    prompts: Sequence[str] = ("{}",),
    provenance: Mapping[str, Any] | None = None,
    tokenizer: str | Path | None = None,
    min_similarity: float | None = None,
) -> Path:
    """Write a package into ``directory`` (made if needed; its own files are replaced). LoRA must be merged before.

    ``tokenizer``: the `tokenizer.json` of a text tower, copied in.
    """
    target = Path(directory)
    if isinstance(spec, TextSpec) != (tokenizer is not None):
        raise TowerPackageError(f"{target}: a text tower, and no other, is saved with its tokenizer.json")
    weights = {name: tensor.detach().to("cpu").contiguous() for name, tensor in tower.state_dict().items()}
    tower_with_weights(config, weights, f"the tower to be saved in {target}")
    document = _Document(
        config=config,
        spec=spec,
        logit_scale=logit_scale,
        min_similarity=min_similarity,
        prompts=tuple(prompts),
        provenance=dict(provenance or {}),
    )
    target.mkdir(parents=True, exist_ok=True)
    save_file(weights, target / WEIGHTS)
    (target / DOCUMENT).write_text(document.model_dump_json(indent=1) + "\n", encoding="utf-8")
    if tokenizer is not None and Path(tokenizer).resolve() != (target / TOKENIZER).resolve():
        shutil.copyfile(tokenizer, target / TOKENIZER)
    return target


def load_tower(directory: str | Path) -> TowerPackage:
    """Read and check a package's document. Raises `TowerPackageError`."""
    root = Path(directory)
    path = root / DOCUMENT
    try:
        document = _Document.model_validate_json(path.read_bytes())
    except OSError as error:
        raise TowerPackageError(f"{path}: {error.strerror or error}") from error
    except ValidationError as error:
        first = error.errors()[0]
        where = "/".join(str(part) for part in first["loc"]) or "/"
        raise TowerPackageError(f"{path} is no tower document: {where}: {first['msg']}") from error
    tokenizer = root / TOKENIZER if isinstance(document.spec, TextSpec) else None
    if tokenizer is not None and not tokenizer.is_file():
        raise TowerPackageError(f"{tokenizer} is missing; a text tower carries its tokenizer")
    return TowerPackage(
        root,
        document.config,
        document.spec,
        document.logit_scale,
        document.prompts,
        document.provenance,
        tokenizer,
        document.min_similarity,
    )


def tower_with_weights(config: TowerConfig, weights: Mapping[str, Tensor], origin: str) -> Tower:
    """A tower in eval mode that holds exactly ``weights`` (cast to float32, not copied when they are float32).

    Raises `TowerPackageError` listing every unknown, missing or misshapen tensor; ``origin`` says whose they are.
    """
    with torch.device("meta"):
        tower = build_tower(config)
    wanted = {name: tensor.shape for name, tensor in tower.state_dict().items()}
    problems = [f"missing {name}" for name in wanted if name not in weights]
    problems += [f"unknown {name}" for name in weights if name not in wanted]
    problems += [
        f"{name} has shape {tuple(weights[name].shape)}, this tower has {tuple(shape)}"
        for name, shape in wanted.items()
        if name in weights and weights[name].shape != shape
    ]
    if problems:
        raise TowerPackageError(f"{origin} does not fit its config: {'; '.join(problems)}")
    tower.load_state_dict({name: _widened(tensor) for name, tensor in weights.items()}, assign=True)
    return tower.eval()


def _widened(tensor: Tensor) -> Tensor:
    return tensor.to(torch.float32) if tensor.is_floating_point() else tensor
