"""Tower packages, as training leaves them → the sources of one bundle."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from export.source import TowerSource
from training.towers.package import TowerPackage, load_tower


def tower_sources(towers: Mapping[str, str]) -> tuple[list[TowerSource], dict[str, Any]]:
    """Sources and provenance. ``towers``: modality name → package directory. Raises `TowerPackageError`."""
    packages = {modality: load_tower(directory) for modality, directory in towers.items()}
    return [_source(modality, package) for modality, package in packages.items()], {
        "towers": {modality: package.provenance for modality, package in packages.items()}
    }


def _source(modality: str, package: TowerPackage) -> TowerSource:
    tokenizer = None if package.tokenizer is None else package.tokenizer.read_text(encoding="utf-8")
    return TowerSource(modality, package.spec, package.module, package.logit_scale, package.prompts, tokenizer)
