"""Released checkpoints → tower packages: what training starts from (`tower.start`, `text` of a recipe)."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

from export.errors import ExportUsageError
from export.source import TowerSource
from training.towers.package import save_tower


def unpack(out: Path, sources: Sequence[TowerSource], provenance: dict[str, Any]) -> list[Path]:
    """One package a source, `OUT/MODALITY`, its LoRA merged. Raises `ExportUsageError` when one of them is there already."""
    packages = {source.modality: out / source.modality for source in sources}
    for package in packages.values():
        if package.exists():
            raise ExportUsageError(f"{package} exists; remove it or choose another --out")
    for source in sources:
        tower = source.tower()
        with tempfile.TemporaryDirectory() as scratch:
            tokenizer = None
            if source.tokenizer is not None:
                tokenizer = Path(scratch) / "tokenizer.json"
                tokenizer.write_text(source.tokenizer, encoding="utf-8")
            save_tower(
                packages[source.modality],
                tower,
                cast(Any, tower).config,
                source.spec,
                logit_scale=source.logit_scale,
                prompts=source.prompts or ("{}",),
                provenance=provenance,
                tokenizer=tokenizer,
                min_similarity=source.min_similarity,
            )
    return list(packages.values())
