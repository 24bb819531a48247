"""The video tower's lessons: the shared clips, forwards and backwards, and clips made of still pictures by pan and zoom.

Every clip is listed twice in the manifest that is written: once with what it shows, and, where the camera moves, once with how.
"""

from __future__ import annotations

import csv
from collections.abc import Iterator, Sequence
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from training.data.manifest import Item, read_manifest, without_licences
from training.data.shards import Files
from training.feed import split_off

Frames = Sequence[Image.Image]

BACKWARDS = {"left": "right", "right": "left", "forward": "backward", "backward": "forward"}
WORDS = {
    "left": ("the camera turns to the left", "the camera pans to the left"),
    "right": ("the camera turns to the right", "the camera pans to the right"),
    "forward": ("the camera moves forward", "the camera zooms in"),
    "backward": ("the camera moves backward", "the camera zooms out"),
}
COLUMNS = ("id", "split", "path", "label", "captions", "source", "licence", "attribution", "motion")
ASIDE = 0.1
_RATE = 10
"""Frames a second of the made clips, and their number: as the shared ones."""
_COUNT = 24


def make_clips(media: Path, out: Path, skip_licences: Sequence[str], *, stills: int = 160, seed: int = 0) -> None:
    """Write clips and `manifest.csv` into ``out``. Splits: train, and aside (a tenth of each label, with what it shows only)."""
    if (out / "manifest.csv").is_file():
        return
    (out / "clips").mkdir(parents=True, exist_ok=True)
    files = Files()
    items, motions = _clips(media / "video" / "manifest.csv", skip_licences)
    learned, aside = split_off(items, ASIDE, seed)
    rows = [row for item in aside for row in _rows(_copied(item, files, out), "aside", "")]
    for item in learned:
        motion = motions[item.id]
        copied = _copied(item, files, out)
        rows += _rows(copied, "train", motion)
        if motion:
            path = _place(f"{item.id}-back")
            write_clip(out / path, list(read_clip(out / copied.path))[::-1])
            rows += _rows(replace(copied, id=f"{item.id}-back", path=path), "train", BACKWARDS[motion])
    pictures = without_licences(read_manifest(media / "image" / "manifest.csv", split="train"), skip_licences)
    rng = np.random.default_rng([seed, 5])
    for number, index in enumerate(rng.choice(len(pictures), min(stills, len(pictures)), replace=False)):
        item, motion = pictures[index], list(WORDS)[number % len(WORDS)]
        with files.source(item).open() as file, Image.open(file) as picture:
            frames = over_still(picture.convert("RGB"), motion, rng)
        path = _place(f"{item.id}-{motion}")
        write_clip(out / path, frames)
        rows += _rows(replace(item, id=f"{item.id}-{motion}", path=path), "train", motion)
    with (out / "manifest.csv.new").open("w", encoding="utf-8", newline="") as table:
        writer = csv.DictWriter(table, COLUMNS)
        writer.writeheader()
        writer.writerows(rows)
    (out / "manifest.csv.new").rename(out / "manifest.csv")


def over_still(picture: Image.Image, motion: str, rng: np.random.Generator) -> list[Image.Image]:
    """A window that wanders over a picture as the frame of a camera would that moves so."""
    width, height = picture.size
    near, far = rng.uniform(0.45, 0.65), rng.uniform(0.8, 1.0)
    turning = motion in ("left", "right")
    along = np.linspace(0, 1, _COUNT) if motion in ("right", "forward") else np.linspace(1, 0, _COUNT)
    shares = np.full(_COUNT, near + 0.1) if turning else far + (near - far) * along
    middle = rng.uniform(0.4, 0.6, size=2)
    shape = (224, 168) if width >= height else (168, 224)
    frames = []
    for place, share in zip(along, shares, strict=True):
        wide, tall = width * share, height * share
        left = (width - wide) * (place if turning else middle[0])
        top = (height - tall) * middle[1]
        frames.append(picture.resize(shape, Image.Resampling.BICUBIC, box=(left, top, left + wide, top + tall)))
    return frames


def read_clip(path: Path) -> Iterator[Image.Image]:
    with av.open(str(path)) as container:
        for frame in container.decode(video=0):
            yield frame.to_image()


def write_clip(path: Path, frames: Frames) -> None:
    """H.264, 10 frames a second."""
    with av.open(str(path), "w") as container:
        stream: Any = container.add_stream("libx264", rate=Fraction(_RATE))
        stream.width, stream.height = (side // 2 * 2 for side in frames[0].size)
        stream.pix_fmt = "yuv420p"
        stream.thread_count = 1  # the same bytes wherever it runs
        for frame in frames:
            pixels: NDArray[np.uint8] = np.asarray(frame)[: stream.height, : stream.width]
            container.mux(stream.encode(av.VideoFrame.from_ndarray(np.ascontiguousarray(pixels), format="rgb24")))
        container.mux(stream.encode())


def _clips(manifest: Path, skip_licences: Sequence[str]) -> tuple[list[Item], dict[str, str]]:
    """The clips that may be used, and the motion of each by its id; empty where the camera stands."""
    with manifest.open(encoding="utf-8", newline="") as file:
        motions = {row["id"]: row["motion"] for row in csv.DictReader(file)}
    return without_licences(read_manifest(manifest, split="train"), skip_licences), motions


def _place(id: str) -> str:
    return f"clips/{id.replace('/', '-')}.mp4"


def _copied(item: Item, files: Files, out: Path) -> Item:
    path = _place(item.id)
    with files.source(item).open() as file:
        (out / path).write_bytes(file.read())
    return replace(item, path=path)


def _rows(item: Item, split: str, motion: str) -> list[dict[str, str]]:
    said = [caption for caption in item.captions if not caption.startswith("the camera ")]
    row = {
        "id": item.id,
        "split": split,
        "path": item.path,
        "label": item.label,
        "captions": " | ".join(said),
        "source": item.source,
        "licence": item.licence,
        "attribution": item.attribution,
        "motion": motion,
    }
    if not motion:
        return [row]
    captions = [*WORDS[motion], *(f"{words}, {item.label}" for words in WORDS[motion])]
    return [row, {**row, "id": f"{item.id}-moves", "label": WORDS[motion][0], "captions": " | ".join(captions)}]
