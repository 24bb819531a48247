"""Towers as large as LanguageBind's (ViT-L/14; text 12 x 768) and inputs for them: what several benchmarks measure with."""

from __future__ import annotations

import os
import platform
import re
from pathlib import Path
from typing import Any

import numpy as np

from bindery.decoded import Tensors
from training.towers.build import TowerConfig
from training.towers.clip_text import ClipTextConfig
from training.towers.tower import Tower
from training.towers.vit import VitConfig

LARGE: dict[str, Any] = {"width": 1024, "layers": 24, "heads": 16, "mlp_width": 4096, "dimension": 768}
TOWERS: dict[str, TowerConfig] = {
    "text": ClipTextConfig(width=768, layers=12, heads=12, mlp_width=3072, dimension=768),
    "image": VitConfig(**LARGE),
    "audio": VitConfig(**LARGE, size=(112, 1036)),
    "video": VitConfig(**LARGE, frames=8, temporal_attention=True),
}
SAME_SHAPE = {"depth": "image", "thermal": "image"}
"""Modalities whose tower is another's in shape, so that its figures are theirs too."""

QUICK: TowerConfig = VitConfig(width=384, layers=6, heads=6, mlp_width=1536, dimension=384)
TOKENS = 16  # a usual caption; texts are trimmed to the longest of their batch


def inputs_of(tower: Tower, batch: int, *, seed: int = 0) -> Tensors:
    """Noise of the tower's own shapes; texts of `TOKENS` tokens."""
    rng = np.random.default_rng(seed)
    sizes = {"batch": batch, "tokens": TOKENS}
    made: Tensors = {}
    for info in tower.inputs:
        shape = tuple(sizes[axis] if isinstance(axis, str) else axis for axis in info.shape)
        made[info.name] = rng.integers(1, 49407, shape) if info.dtype == "int64" else rng.standard_normal(shape).astype(np.float32)
    return made


def processor() -> str:
    """A ratio depends on whose matrix library knows this processor, so it is named."""
    said = Path("/proc/cpuinfo").read_text()
    names = re.findall(r"model name\s*: (.*)", said)
    features = [name for name in ("avx2", "avx512f", "avx512_bf16", "amx_tile") if name in said]
    return f"{names[0] if names else platform.machine()} ({', '.join(features)})"


def resident() -> float:
    """MB of this process in memory."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e6
