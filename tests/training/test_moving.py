"""Clips with a known camera motion, made of still pictures and of clips played backwards."""

from __future__ import annotations

import csv
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from bindery.spec import VideoSpec
from tests.training.toyset import make_pictures
from training.data.augment import Augment
from training.data.batches import Decoder
from training.data.manifest import read_manifest
from training.evaluation.manifests import manifest_samples
from training.features import feature_views
from training.starter.moving import BACKWARDS, WORDS, make_clips, over_still, read_clip, write_clip
from training.towers.convnet import ConvNetConfig, ConvNetTower, Stage
from training.towers.motion import Motion, MotionConfig

MOTION = MotionConfig(grid=28, reach=(4, 6), cells=2)
SPEC = VideoSpec(frames=8, size=112, mean=(0.5,) * 3, std=(0.5,) * 3)


def still(seed: int) -> Image.Image:
    coarse = np.random.default_rng(seed).integers(0, 256, (24, 32, 3), dtype=np.uint8)
    return Image.fromarray(coarse).resize((320, 240), Image.Resampling.BICUBIC)


def outwards(field: torch.Tensor) -> float:
    """How much the four blocks' shifts point away from the middle; ``field``: (2, 4), across and down."""
    return float((field * torch.tensor([[-1.0, 1, -1, 1], [-1, -1, 1, 1]])).mean())


def shifts_of(frames: list[Image.Image]) -> torch.Tensor:
    """(2, blocks), the mean over the clip."""
    pixels = np.stack([np.asarray(frame.resize((112, 112)), dtype=np.float32) / 128 - 1 for frame in frames])
    clip = torch.from_numpy(pixels).permute(3, 0, 1, 2).unsqueeze(0)  # (1, 3, frames, 112, 112)
    return Motion(MOTION)(clip)[0, :-1].mean(dim=0).unflatten(0, (2, MOTION.cells**2))


def test_a_window_over_a_still_moves_the_picture_the_other_way() -> None:
    for seed in range(3):
        fields = {motion: shifts_of(over_still(still(seed), motion, np.random.default_rng(seed))[::4]) for motion in WORDS}
        assert fields["left"][0].min() > 0.05  # the camera turns left: what it sees goes right
        assert fields["right"][0].max() < -0.05
        assert outwards(fields["forward"]) > 0.02
        assert outwards(fields["backward"]) < -0.02


def media(root: Path) -> Path:
    """Five walks to the left through one room, one walk forward that may not be used, one clip that stands, and pictures."""
    make_pictures(root / "image", each=2, val=0, bad=0)
    (root / "video").mkdir()
    rows = [("walk", f"walk-{n}", "left", "CC0-1.0", "the camera turns to the left in a walk | a video of a walk") for n in range(10)]
    rows += [("walk", "mine", "forward", "GPL-3", "a video of a walk"), ("fish", "fish", "", "CC0-1.0", "a fish")]
    with (root / "video" / "manifest.csv").open("w", newline="") as file:
        table = csv.writer(file)
        table.writerow(["label", "id", "motion", "licence", "captions", "split", "path"])
        for number, row in enumerate(rows):
            write_clip(root / "video" / f"{row[1]}.mp4", over_still(still(number), "left", np.random.default_rng(0)))
            table.writerow([*row, "train", f"{row[1]}.mp4"])
    return root


def test_clips_are_listed_with_what_they_show_and_how_they_move(tmp_path: Path) -> None:
    out = tmp_path / "out"
    make_clips(media(tmp_path), out, ["GPL*"], stills=4)
    items = read_manifest(out / "manifest.csv")
    aside = [item for item in items if item.split == "aside"]
    assert [item.label for item in aside] == ["walk"]
    learned = [item for item in items if item.split == "train"]
    assert not {item.path for item in learned} & {aside[0].path, "clips/mine.mp4", f"clips/{aside[0].id}-back.mp4"}
    moving = [item for item in learned if item.id.endswith("-moves")]
    said = {motion: [item for item in moving if item.label == WORDS[motion][0]] for motion in WORDS}
    assert {motion: len(found) for motion, found in said.items()} == {"left": 9 + 1, "right": 9 + 1, "forward": 1, "backward": 1}
    assert all(caption.startswith("the camera ") for item in moving for caption in item.captions)
    assert not any(caption.startswith("the camera ") for item in learned if item not in moving for caption in item.captions)
    back = next(item for item in said["right"] if item.id.endswith("-back-moves"))
    field = shifts_of(list(read_clip(out / back.path))[::3])
    assert field[0].max() < -0.05  # decoded again, it moves as it is said to
    assert BACKWARDS[BACKWARDS["left"]] == "left"

    before = (out / "manifest.csv").read_bytes()
    shutil.rmtree(tmp_path / "video")
    make_clips(tmp_path, out, ["GPL*"], stills=4)  # what is there stays
    assert (out / "manifest.csv").read_bytes() == before

    where = {"manifests": {"video": "manifest.csv"}, "split": "train", "label": "motion"}
    samples = list(manifest_samples(out, where))
    assert {label for sample in samples for label in sample.labels} == set(WORDS)
    assert len(samples) == 2 * len(moving)  # the fish stands still and is left out


def test_a_file_that_is_listed_twice_is_seen_once(tmp_path: Path) -> None:
    make_clips(media(tmp_path), tmp_path / "out", ["GPL*"], stills=4)
    listed = read_manifest(tmp_path / "out" / "manifest.csv", split="train")
    scene = next(item for item in listed if item.id == "fish")
    decoder = Decoder([scene, replace(scene, id="again", captions=("another word",))], SPEC)
    config = ConvNetConfig(
        size=(112, 112),
        frames=8,
        stem=2,
        stages=(Stage(kernel=3, stride=2, channels=2, blocks=1),),
        features=4,
        dimension=3,
        motion=MOTION,
    )
    views = feature_views(ConvNetTower(config).eval(), decoder, views=2, how=Augment(gain=0.5), seed=0, device="cpu", report=lambda _: None)
    assert [item.id for item in views.items] == ["fish", "again"]
    assert torch.equal(views.features[0], views.features[1])
    assert views.features.shape == (2, 2, 8, 4 + MOTION.width)
