"""The layout `boxes`: pictures with boxes around things (COCO or VOC); each box's picture is one sample, its class the label.

So the paper measures LLVIP and FLIR (section 5.1): the object is cut out and named. LLVIP has one class, person, so as many boxes that
hold none are drawn beside them, of the same shapes, and labelled `background`.
"""

from __future__ import annotations

import hashlib
import io
import json
import random
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal
from xml.etree import ElementTree

from PIL import Image
from pydantic import BaseModel, ConfigDict, Field

from bindery.errors import BinderyError, UnreadableMedia
from bindery.media.source import Source
from training.evaluation.samples import Sample
from training.evaluation.task import TaskError

_DRAWS = 50
"""Tries for a box that holds nothing, before the picture is taken to be full."""


class Boxes(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    style: Literal["coco", "voc"]
    annotations: str = Field(description="the COCO file, or the directory of VOC files")
    pictures: dict[str, str] = Field(description="modality → directory of its pictures; all of one scene have one name")
    suffix: str = Field(".jpg", description="voc: of the pictures")
    classes: tuple[str, ...] = Field((), description="those that count; none: all that are found")
    background: str | None = Field(None, description="label of boxes that hold nothing, one beside each that holds something")
    min_side: int = Field(8, ge=1, description="px; smaller boxes are left out")


@dataclass(frozen=True, slots=True)
class Box:
    """Pixels from the upper left: left, top, right, bottom."""

    left: int
    top: int
    right: int
    bottom: int

    def overlaps(self, other: Box) -> bool:
        return self.left < other.right and other.left < self.right and self.top < other.bottom and other.top < self.bottom


def box_samples(data: Path, where: Mapping[str, Any]) -> Iterator[Sample]:
    boxes = Boxes.model_validate(where)
    read = _coco if boxes.style == "coco" else _voc
    for name, size, marked in read(data, boxes):
        kept = [(label, box) for label, box in marked if not boxes.classes or label in boxes.classes]
        if boxes.background is not None:
            kept += _empty_boxes(name, size, [box for _, box in marked], boxes.background)
        for number, (label, box) in enumerate(kept):
            if min(box.right - box.left, box.bottom - box.top) >= boxes.min_side:
                media = {modality: partial(_cut, data / directory / name, box) for modality, directory in boxes.pictures.items()}
                yield Sample(id=f"{name}#{number}", media=media, labels=(label,))


def _cut(path: Path, box: Box) -> Source:
    try:
        with Image.open(path) as picture:
            stream = io.BytesIO()
            picture.crop((box.left, box.top, box.right, box.bottom)).save(stream, "PNG")
    except (OSError, ValueError, Image.DecompressionBombError) as error:
        raise _unreadable(path, error) from error
    return Source.of(stream.getvalue(), name=path.name)


def _unreadable(path: Path, error: Exception) -> BinderyError:
    return UnreadableMedia(f"{path.name}: cannot be cut ({error})")


def _coco(data: Path, boxes: Boxes) -> Iterator[tuple[str, tuple[int, int], list[tuple[str, Box]]]]:
    path = data / boxes.annotations
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
        labels = {one["id"]: str(one["name"]) for one in document["categories"]}
        marked: dict[int, list[tuple[str, Box]]] = {}
        for one in document["annotations"]:
            x, y, width, height = (round(value) for value in one["bbox"])
            if one["category_id"] in labels:
                marked.setdefault(one["image_id"], []).append((labels[one["category_id"]], Box(x, y, x + width, y + height)))
        for image in document["images"]:
            yield Path(image["file_name"]).name, (image["width"], image["height"]), marked.get(image["id"], [])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise TaskError(f"{path} is no COCO annotation file: {error!r}") from error


def _voc(data: Path, boxes: Boxes) -> Iterator[tuple[str, tuple[int, int], list[tuple[str, Box]]]]:
    directory = data / next(iter(boxes.pictures.values()))
    pictures = sorted(directory.glob(f"*{boxes.suffix}"))
    if not pictures:
        raise TaskError(f"{directory} has no {boxes.suffix} picture")
    for picture in pictures:
        path = data / boxes.annotations / f"{picture.stem}.xml"
        try:
            root = ElementTree.parse(path).getroot()
            size = (int(root.findtext("size/width") or 0), int(root.findtext("size/height") or 0))
            marked = [(one.findtext("name") or "", _voc_box(one)) for one in root.iter("object")]
        except (OSError, ElementTree.ParseError, ValueError) as error:
            raise TaskError(f"{path} is no VOC annotation file: {error!r}") from error
        yield picture.name, size, marked


def _voc_box(thing: ElementTree.Element) -> Box:
    return Box(*(round(float(thing.findtext(f"bndbox/{edge}") or "")) for edge in ("xmin", "ymin", "xmax", "ymax")))


def _empty_boxes(name: str, size: tuple[int, int], taken: list[Box], label: str) -> list[tuple[str, Box]]:
    """The same boxes for the same picture every time: they are drawn from its name."""
    draw = random.Random(hashlib.sha256(name.encode()).digest())
    empty = []
    for box in taken:
        width, height = box.right - box.left, box.bottom - box.top
        if width > size[0] or height > size[1]:
            continue
        for _ in range(_DRAWS):
            left, top = draw.randint(0, size[0] - width), draw.randint(0, size[1] - height)
            drawn = Box(left, top, left + width, top + height)
            if not any(drawn.overlaps(other) for other in taken):
                empty.append((label, drawn))
                break
    return empty
