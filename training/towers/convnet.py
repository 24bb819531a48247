"""A convolutional tower: an EfficientNet-Lite trunk and a small head. The small, quick sister of the ViT.

Pictures, log-mel pictures and clips share the trunk's code; a clip's frames go through it one by one and the head sees their mean.
Where `motion` is asked for the head is also told how the frames moved.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, Self

import torch
import torch.nn.functional as F
from pydantic import Field, model_validator
from torch import Tensor, nn

from bindery.bundle import TensorInfo
from training.towers.motion import Motion, MotionConfig, MotionHead
from training.towers.tower import Tower, TowerShape, unit


class Stage(TowerShape):
    """A run of blocks of one width; the first one strides."""

    kernel: int = Field(gt=0)
    stride: int = Field(gt=0)
    expand: int = Field(1, gt=0, description="how many times wider the middle of a block is")
    channels: int = Field(gt=0)
    blocks: int = Field(gt=0)


def _stage(kernel: int, stride: int, expand: int, channels: int, blocks: int) -> Stage:
    return Stage(kernel=kernel, stride=stride, expand=expand, channels=channels, blocks=blocks)


EFFICIENTNET_LITE0 = (
    _stage(3, 1, 1, 16, 1),
    _stage(3, 2, 6, 24, 2),
    _stage(5, 2, 6, 40, 2),
    _stage(3, 2, 6, 80, 3),
    _stage(5, 1, 6, 112, 3),
    _stage(5, 2, 6, 192, 4),
    _stage(3, 1, 6, 320, 1),
)


class TaggerConfig(TowerShape):
    """Shape of a `Tagger`."""

    classes: int = Field(gt=1)
    best: int = Field(10, gt=0, description="classes that are mixed; the others are left out")
    scores: Literal["softmax", "sigmoid"] = Field("softmax", description="sigmoid: of classes that can be there together")
    frames: Literal["mean", "most"] = Field(
        "mean",
        description="mean: classified is the mean of the frames; most: every frame, and a class counts as in the frame that has most of it",
    )


class ConvNetConfig(TowerShape):
    """Shape of a `ConvNetTower`. The default trunk is EfficientNet-Lite0."""

    architecture: Literal["convnet"] = "convnet"
    size: tuple[int, int] = Field((224, 224), description="height and width of the picture, px")
    channels: int = Field(3, gt=0)
    apart: bool = Field(False, description="each channel is a picture of its own, any number of them; the head sees their mean")
    frames: int | None = Field(None, gt=0, description="None: takes pictures; a number: takes clips of exactly so many frames")
    stem: int = Field(32, gt=0, description="channels of the first convolution, which strides by 2")
    block: Literal["inverted", "separable"] = Field(
        "inverted", description="inverted residual (MobileNetV2), or depthwise and pointwise with no way round (MobileNetV1)"
    )
    stages: tuple[Stage, ...] = Field(EFFICIENTNET_LITE0, min_length=1)
    features: int = Field(1280, gt=0, description="channels of the last convolution, averaged over the picture")
    hidden: int = Field(0, ge=0, description="width of the head's hidden layer; 0: the head is linear")
    norm: bool = Field(True, description="layer norm in front of the head")
    dropout: float = Field(0.0, ge=0, lt=1, description="share of the head's inputs left out, in training only")
    dimension: int = Field(gt=0, description="length of the vectors")
    tagger: TaggerConfig | None = Field(
        None, description="a classifier over the trunk whose answer the head corrects; None: the head alone"
    )
    motion: MotionConfig | None = Field(
        None, description="shifts from frame to frame, beside what the trunk sees; None: frames in any order"
    )

    @model_validator(mode="after")
    def _something_can_move(self) -> Self:
        if self.motion is not None:
            if self.frames is None or self.frames < 2:
                raise ValueError("motion needs frames, two at least")
            if any(side % self.motion.grid for side in self.size):
                raise ValueError(f"motion.grid {self.motion.grid} does not divide the size {self.size}")
        return self


class ConvNetTower(Tower):
    """``pixel_values`` (batch, channels, height, width), or (batch, channels, frames, height, width) for clips."""

    def __init__(self, config: ConvNetConfig) -> None:
        super().__init__()
        self.config = config
        self.dimension = config.dimension
        frames = () if config.frames is None else (config.frames,)
        self._picture = (config.channels, *frames, *config.size)
        self.inputs = (TensorInfo(name="pixel_values", dtype="float32", shape=("batch", *self._picture)),)
        self.feature_width = config.features + (0 if config.motion is None else config.motion.width)
        self.trunk = Trunk(config)
        self.motion = None if config.motion is None else Motion(config.motion)
        self.head = Head(config)
        self.tagger = None if config.tagger is None else Tagger(config, config.tagger)
        if self.tagger is not None:  # the head corrects, and begins with nothing to say
            nn.init.zeros_(self.head.out.weight)
            nn.init.zeros_(self.head.out.bias)

    def blocks(self) -> Sequence[nn.Module]:
        return list(self.trunk.blocks)

    def forward(self, pixel_values: Tensor) -> Tensor:
        return unit(self.vector(self.features(pixel_values)))

    def vector(self, features: Tensor) -> Tensor:
        """``(batch, frames, features)`` → ``(batch, dimension)``, not yet of unit length."""
        vector: Tensor = self.head(features)
        return vector if self.tagger is None else vector + self.tagger(features[..., : self.config.features])

    def features(self, pixel_values: Tensor) -> Tensor:
        """``(batch, frames, features)``: what the trunk sees and the head works on; one frame for a still picture.

        With `motion` each frame's features are followed by its shifts to the next one.
        """
        if self.config.apart and pixel_values.shape[2:] == self._picture[1:]:
            windows = pixel_values.shape[1]
            return self.trunk(pixel_values.flatten(0, 1).unsqueeze(1)).unflatten(0, (-1, windows))
        if pixel_values.shape[1:] != self._picture:
            raise ValueError(
                f"pixel_values has shape {tuple(pixel_values.shape)}; this tower takes (batch, {', '.join(map(str, self._picture))})"
            )
        frames = self.config.frames or 1
        pictures = pixel_values
        if self.config.frames is not None:
            pictures = pixel_values.transpose(1, 2).flatten(0, 1)  # (batch * frames, channels, height, width), frames innermost
        seen = self.trunk(pictures).unflatten(0, (-1, frames))
        return seen if self.motion is None else torch.cat([seen, self.motion(pixel_values)], dim=-1)


class Head(nn.Module):
    """``(batch, frames, features)`` → ``(batch, dimension)``, not yet of unit length."""

    def __init__(self, config: ConvNetConfig) -> None:
        super().__init__()
        width = config.features
        self.norm = nn.LayerNorm(width) if config.norm else nn.Identity()
        self.dropout = nn.Dropout(config.dropout)
        self.hidden = nn.Linear(width, config.hidden) if config.hidden else None
        self.out = nn.Linear(config.hidden or width, config.dimension)
        self.width = width
        self.motion = None if config.motion is None else MotionHead(config.motion, config.dimension)

    def forward(self, features: Tensor) -> Tensor:
        pooled = self.dropout(self.norm(features[..., : self.width].mean(dim=1)))  # (batch, features)
        vector: Tensor = self.out(pooled if self.hidden is None else F.gelu(self.hidden(pooled)))
        return vector if self.motion is None else vector + self.motion(features[..., self.width :])


class Tagger(nn.Module):
    """``(batch, frames, features)`` → ``(batch, dimension)``: text vectors of a classifier's most likely classes, mixed by their shares.

    So a tower knows every class that its trunk was trained on, by name, before it has seen a caption (ConSE, Norouzi et al. 2014).
    """

    def __init__(self, config: ConvNetConfig, tagger: TaggerConfig) -> None:
        super().__init__()
        self.config = tagger
        self.classify = nn.Linear(config.features, tagger.classes)
        self.names = nn.Parameter(torch.zeros(tagger.classes, config.dimension))

    def forward(self, features: Tensor) -> Tensor:
        shares = self.shares(features)
        least = shares.topk(self.config.best, dim=-1).values[:, -1:]
        kept = torch.where(shares >= least, shares, torch.zeros_like(shares))
        return (kept / kept.sum(dim=-1, keepdim=True)) @ self.names

    def shares(self, features: Tensor) -> Tensor:
        """``(batch, frames, features)`` → ``(batch, classes)`` in 0..1."""
        logits: Tensor = self.classify(features.mean(dim=1) if self.config.frames == "mean" else features)
        shares = logits.softmax(dim=-1) if self.config.scores == "softmax" else logits.sigmoid()
        return shares if self.config.frames == "mean" else shares.amax(dim=1)


class Trunk(nn.Module):
    """``(pictures, channels, height, width)`` → ``(pictures, features)``."""

    def __init__(self, config: ConvNetConfig) -> None:
        super().__init__()
        self.stem = ConvNorm(1 if config.apart else config.channels, config.stem, 3, stride=2)
        width = config.stem
        blocks: list[nn.Module] = []
        for stage in config.stages:
            for index in range(stage.blocks):
                kind = InvertedResidual if config.block == "inverted" else Separable
                blocks.append(kind(width, stage, stride=stage.stride if index == 0 else 1))
                width = stage.channels
        self.blocks = nn.ModuleList(blocks)
        self.last = ConvNorm(width, config.features, 1)

    def forward(self, pictures: Tensor) -> Tensor:
        maps = F.relu6(self.stem(pictures))
        for block in self.blocks:
            maps = block(maps)
        return F.relu6(self.last(maps)).mean(dim=(2, 3))


class InvertedResidual(nn.Module):
    """Widen, filter each channel by itself, narrow; added to its input where shapes allow."""

    def __init__(self, width: int, stage: Stage, *, stride: int) -> None:
        super().__init__()
        middle = width * stage.expand
        self.residual = stride == 1 and width == stage.channels
        self.expand = ConvNorm(width, middle, 1) if stage.expand > 1 else None
        self.depthwise = ConvNorm(middle, middle, stage.kernel, stride=stride, groups=middle)
        self.project = ConvNorm(middle, stage.channels, 1)

    def forward(self, maps: Tensor) -> Tensor:
        hidden = maps if self.expand is None else F.relu6(self.expand(maps))
        narrow = self.project(F.relu6(self.depthwise(hidden)))
        return maps + narrow if self.residual else narrow


class Separable(nn.Module):
    """Filter each channel by itself, then mix them."""

    def __init__(self, width: int, stage: Stage, *, stride: int) -> None:
        super().__init__()
        self.depthwise = ConvNorm(width, width, stage.kernel, stride=stride, groups=width)
        self.pointwise = ConvNorm(width, stage.channels, 1)

    def forward(self, maps: Tensor) -> Tensor:
        return F.relu6(self.pointwise(F.relu6(self.depthwise(maps))))


class ConvNorm(nn.Module):
    """Convolution without bias and batch norm, padded so that the output is ceil(input / stride)."""

    def __init__(self, width: int, out: int, kernel: int, *, stride: int = 1, groups: int = 1) -> None:
        super().__init__()
        self.kernel = kernel
        self.stride = stride
        self.conv = nn.Conv2d(width, out, kernel, stride=stride, groups=groups, bias=False)
        self.norm = nn.BatchNorm2d(out, eps=1e-3, momentum=0.01)  # both as the published weights were trained

    def forward(self, maps: Tensor) -> Tensor:
        top, bottom = self._padding(maps.shape[-2])
        left, right = self._padding(maps.shape[-1])
        if (top, left) != (bottom, right):
            return self.norm(self.conv(F.pad(maps, (left, right, top, bottom))))
        conv = self.conv  # it pads by itself, which saves a copy of the maps
        return self.norm(F.conv2d(maps, conv.weight, None, conv.stride, (top, left), conv.dilation, conv.groups))

    def _padding(self, length: int) -> tuple[int, int]:
        # TensorFlow's "same": an odd pixel goes to the far side. torch's own padding would shift every strided layer by one.
        total = max((-(-length // self.stride) - 1) * self.stride + self.kernel - length, 0)
        return total // 2, total - total // 2
