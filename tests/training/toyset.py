"""A toy world for training tests: pictures of one colour with a bar across, and a small frozen text tower that knows a few words."""

from __future__ import annotations

import csv
import io
import tarfile
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Whitespace
from tokenizers.processors import TemplateProcessing

from bindery.spec import TextSpec
from training.towers.bert import BertConfig, BertTower
from training.towers.package import save_tower

COLOURS = {"red": (220, 30, 30), "green": (30, 200, 40), "blue": (30, 40, 220), "white": (240, 240, 240)}
DIMENSION = 16


def make_text_tower(directory: Path) -> Path:
    words = ["[PAD]", "[CLS]", "[SEP]", "[UNK]", "a", "picture", "photo", "of", "paint", "colour", *COLOURS]
    tokenizer = Tokenizer(WordLevel({word: n for n, word in enumerate(words)}, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = Whitespace()
    tokenizer.post_processor = TemplateProcessing(single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 1), ("[SEP]", 2)])
    directory.mkdir(parents=True, exist_ok=True)
    made = directory / "made.json"
    tokenizer.save(str(made))
    torch.manual_seed(5)
    config = BertConfig(vocabulary=len(words), context_length=16, width=DIMENSION, layers=1, heads=2, mlp_width=32)
    spec = TextSpec(tokenizer="tokenizer.json", context_length=16, cleanup="none", pad_id=0, attention_mask=True)
    return save_tower(directory, BertTower(config), config, spec, tokenizer=made)


def make_pictures(directory: Path, *, each: int = 12, bad: int = 0, val: int = 0, size: int = 16) -> Path:
    """``each`` training pictures a colour in `train.tar`, ``bad`` unreadable ones, ``val`` more a colour; returns the manifest."""
    directory.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(3)
    rows = []
    with tarfile.open(directory / "train.tar", "w") as tar:
        for colour, rgb in COLOURS.items():
            for number in range(each + val):
                pixels = np.clip(np.array(rgb) + rng.integers(-25, 26, size=(size, size, 3)), 0, 255).astype(np.uint8)
                pixels[rng.integers(size)] = 0
                stream = io.BytesIO()
                Image.fromarray(pixels).save(stream, "PNG")
                rows.append(_add(tar, f"{colour}/{number}.png", stream.getvalue(), colour, "train" if number < each else "val"))
        rows += [_add(tar, f"bad/{number}.png", b"\x89PNG\r\n\x1a\n not a picture", "bad", "train") for number in range(bad)]
    manifest = directory / "manifest.csv"
    with manifest.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    return manifest


def _add(tar: tarfile.TarFile, path: str, data: bytes, colour: str, split: str) -> dict[str, str]:
    info = tarfile.TarInfo(path)
    info.size = len(data)
    tar.addfile(info, io.BytesIO(data))
    captions = f"a picture of {colour} paint | the colour {colour}"
    return {
        "id": path,
        "split": split,
        "shard": "train.tar",
        "path": path,
        "label": colour,
        "captions": captions,
        "source": "toy",
        "licence": "CC0",
    }
