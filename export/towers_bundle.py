"""Tower packages, as training leaves them → the sources of one bundle."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from export.errors import ExportUsageError
from export.source import TowerSource
from training.towers.package import TowerPackage, load_tower


def tower_sources(towers: Mapping[str, str]) -> tuple[list[TowerSource], dict[str, Any]]:
    """Sources and provenance. ``towers``: modality name → package directory. Raises `TowerPackageError`."""
    packages = {modality: load_tower(directory) for modality, directory in towers.items()}
    return [_source(modality, package) for modality, package in packages.items()], {
        "towers": {modality: package.provenance for modality, package in packages.items()}
    }


def require_space(provenance: Mapping[str, Mapping[str, Any]], space: str) -> None:
    """Raises `ExportUsageError` when a tower was not trained in this space: its vectors would compare with nothing there."""
    for modality, said in provenance.items():
        if said.get("space") != space:
            trained = said.get("space") or f"the text package {said.get('text')!r}"
            raise ExportUsageError(f'{modality} was trained in {trained}, not in {space}; train it with text = "bundle:NAME"')


def extended_card(card: str, sources: Sequence[TowerSource]) -> str:
    """A bundle's own card, and what was added since."""
    lines = ["| modality | kind | prompts |", "| --- | --- | --- |"]
    lines += [f"| {source.modality} | {source.spec.kind} | {', '.join(f'`{p}`' for p in source.prompts)} |" for source in sources]
    rows = "\n".join(lines)
    return f"{card.rstrip()}\n\n## Added\n\n{rows}\n"


def _source(modality: str, package: TowerPackage) -> TowerSource:
    tokenizer = None if package.tokenizer is None else package.tokenizer.read_text(encoding="utf-8")
    return TowerSource(modality, package.spec, package.module, package.logit_scale, package.prompts, tokenizer, package.min_similarity)
