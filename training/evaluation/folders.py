"""The layouts `folders` (a folder a class) and `scenes` (SUN RGB-D: a folder a picture, with its class in `scene.txt`)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict

from bindery.media.source import Source
from training.evaluation.samples import Opener, Sample
from training.evaluation.task import TaskError


class Folders(BaseModel):
    """``roots``: modality → folder of class folders. A sample has a file of the same class and stem in each of them."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    roots: dict[str, str]


class Scenes(BaseModel):
    """``files``: modality → pattern below a picture's folder. ``classes``: those that count; none: all that are found."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    files: dict[str, str]
    classes: tuple[str, ...] = ()
    listed: str | None = None


def folder_samples(data: Path, where: Mapping[str, Any]) -> Iterator[Sample]:
    roots = {modality: data / root for modality, root in Folders.model_validate(where).roots.items()}
    for root in roots.values():
        if not root.is_dir():
            raise TaskError(f"{root} is no directory; the task wants a folder a class in it")
    trees = {modality: {path.relative_to(root).with_suffix(""): path for path in _files(root)} for modality, root in roots.items()}
    first = next(iter(trees.values()))
    for stem in sorted(first):
        media: dict[str, Opener] = {modality: partial(Source.of, tree[stem]) for modality, tree in trees.items() if stem in tree}
        if len(stem.parts) > 1:
            yield Sample(id=str(stem), media=media, labels=(_words(stem.parts[0]),))


def scene_samples(data: Path, where: Mapping[str, Any]) -> Iterator[Sample]:
    scenes = Scenes.model_validate(where)
    listed = None
    if scenes.listed is not None:
        if not (data / scenes.listed).is_file():
            raise TaskError(f"{data / scenes.listed} is missing: one picture's folder a line, those of the test split")
        listed = {line.strip().strip("/") for line in (data / scenes.listed).read_text(encoding="utf-8").splitlines()}
    notes = sorted(data.rglob("scene.txt"))
    if not notes:
        raise TaskError(f"no scene.txt anywhere below {data}")
    for note in notes:
        scene, id_ = note.read_text(encoding="utf-8", errors="replace").strip(), str(note.parent.relative_to(data))
        if (scenes.classes and scene not in scenes.classes) or (listed is not None and id_ not in listed):
            continue
        found = {modality: sorted(note.parent.glob(pattern)) for modality, pattern in scenes.files.items()}
        media: dict[str, Opener] = {modality: partial(Source.of, paths[0]) for modality, paths in found.items() if paths}
        yield Sample(id=id_, media=media, labels=(_words(scene),))


def _files(root: Path) -> Iterator[Path]:
    return (path for path in sorted(root.rglob("*")) if path.is_file() and not path.name.startswith("."))


def _words(name: str) -> str:
    return name.replace("_", " ").strip()
