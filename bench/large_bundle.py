"""A bundle of towers as large as LanguageBind's (ViT-L/14; text 12 x 768) with random weights, made once in a scratch directory.

The towers are the same each time (seeded), so a peer in torch can build them again instead of loading a file.
"""

from __future__ import annotations

from pathlib import Path

import torch
from large_towers import TOWERS

from bindery.bundle import MANIFEST, PACKAGED_BUNDLES
from bindery.spec import AudioSpec, ImageSpec, Spec, TextSpec, VideoSpec
from export.source import TowerSource
from export.write_bundle import BundleOrder, write_bundle
from training.towers.build import build_tower
from training.towers.tower import Tower

NAME = "large-random"
SPECS: dict[str, Spec] = {
    "text": TextSpec(kind="text", tokenizer="text/tokenizer.json", context_length=77, cleanup="none", pad_id=0, attention_mask=False),
    "image": ImageSpec(kind="image", size=224),
    "audio": AudioSpec(kind="audio", mel_bins=112, frames=1036),
    "video": VideoSpec(kind="video", size=224, frames=8),
}
MAX_BATCH = {"text": 16, "image": 4, "audio": 2, "video": 1}
TOKENIZER = PACKAGED_BUNDLES / "starter/text/tokenizer.json"
"""Any vocabulary will do that has fewer tokens than the tower."""


def large_tower(modality: str) -> Tower:
    """In eval mode, float32, the same weights at every call."""
    torch.manual_seed(0)
    return build_tower(TOWERS[modality]).eval()


def large_bundle(scratch: Path) -> Path:
    """Its directory. The first time it takes minutes and 4.5 GB of disk."""
    directory = scratch / NAME
    if (directory / MANIFEST).is_file():
        return directory
    words = TOKENIZER.read_text(encoding="utf-8")
    sources = [
        TowerSource(
            modality,
            spec,
            lambda modality=modality: large_tower(modality),  # type: ignore[misc]
            None if modality == "text" else 100.0,
            ("{}",),
            words if modality == "text" else None,
        )
        for modality, spec in SPECS.items()
    ]
    order = BundleOrder(NAME, "1", "Apache-2.0", {"weights": "random"}, max_batch=MAX_BATCH, min_cosine=0.999, max_abs=1e-2)
    write_bundle(directory, sources, order)
    return directory
