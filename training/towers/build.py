"""The table of architectures. A new one is one file here, one member of `TowerConfig` and one row of `_TOWERS`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Any

from pydantic import Field

from training.towers.bert import BertConfig, BertTower
from training.towers.clip_text import ClipTextConfig, ClipTextTower
from training.towers.convnet import ConvNetConfig, ConvNetTower
from training.towers.tower import Tower
from training.towers.vit import VitConfig, VitTower

TowerConfig = Annotated[
    VitConfig | ClipTextConfig | BertConfig | ConvNetConfig,
    Field(discriminator="architecture"),
]

_TOWERS: dict[type, Callable[[Any], Tower]] = {
    VitConfig: VitTower,
    ClipTextConfig: ClipTextTower,
    BertConfig: BertTower,
    ConvNetConfig: ConvNetTower,
}


def build_tower(config: TowerConfig) -> Tower:
    """A tower of this shape with fresh weights, in training mode, as every new torch module is."""
    return _TOWERS[type(config)](config)
