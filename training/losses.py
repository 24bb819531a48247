"""The contrastive loss: symmetric InfoNCE with a learned temperature, and which pairs of a batch belong together."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

MAX_LOG_SCALE = math.log(100.0)

Positives = Literal["pair", "same_caption", "same_label"]
"""Who belongs together in a batch, besides an item and its own caption.

pair: nobody (the paper). same_caption: items that drew the same text; to call that text wrong for one of them would be false.
same_label: items of one label too; for small labelled sets, where most "negatives" of a batch say the same in other words.
"""


class LogitScale(nn.Module):
    """The multiplier of cosines, learned as its logarithm and kept in 1..100."""

    def __init__(self, temperature: float = 0.07) -> None:
        super().__init__()
        self.log = nn.Parameter(torch.tensor(math.log(1 / temperature)))

    def forward(self) -> Tensor:
        return self.log.exp()

    @property
    def value(self) -> float:
        return self.log.detach().exp().item()

    @torch.no_grad()
    def clamp(self) -> None:
        """To be called after each optimiser step."""
        self.log.clamp_(0.0, MAX_LOG_SCALE)


def positives(captions: Sequence[str], labels: Sequence[str], rule: Positives) -> Tensor:
    """``(n, n)`` float32, 1 where item i and caption j belong together. An empty label belongs with no other.

    An item without words (an empty caption) belongs with nothing, itself included: its row and its column are 0.
    """
    count = len(captions)
    together = torch.eye(count)
    if rule != "pair":
        together = torch.maximum(together, _equal(captions))
    if rule == "same_label":
        together = torch.maximum(together, _equal([label or f"#{index}" for index, label in enumerate(labels)]))
    said = torch.tensor([bool(caption) for caption in captions], dtype=torch.float32)
    return together * said[:, None] * said[None, :]


def contrastive_loss(
    media: Tensor, text: Tensor, scale: Tensor, together: Tensor, wrong: Tensor | None = None, spared: Tensor | None = None
) -> Tensor:
    """Mean of the two cross-entropies of ``scale · cosine``: each item over all captions, each caption over all items.

    ``media``, ``text``: ``(n, d)`` unit rows. ``together``: ``(n, n)`` weights ≥ 0 with no empty row or column; an item's
    target is its row divided by its sum. With the identity this is InfoNCE. ``wrong``: ``(n, m)`` cosines of the items to further
    texts that are none of their captions, but for those ``spared`` (n, m), which may be.
    """
    logits = scale * media @ text.T  # (items, captions)
    targets = together / together.sum(dim=1, keepdim=True)
    if wrong is None:
        to_text = F.cross_entropy(logits, targets)
    else:
        others = scale * wrong
        beside = torch.cat([logits, others if spared is None else others.masked_fill(spared, -torch.inf)], dim=1)
        to_text = (beside.logsumexp(dim=1) - (targets * logits).sum(dim=1)).mean()
    to_media = F.cross_entropy(logits.T, together.T / together.T.sum(dim=1, keepdim=True))
    return (to_text + to_media) / 2


def _equal(words: Sequence[str]) -> Tensor:
    numbers = {word: number for number, word in enumerate(dict.fromkeys(words))}
    codes = torch.tensor([numbers[word] for word in words])
    return (codes[:, None] == codes[None, :]).float()
