"""How open the starter's eyes and ears are: labels taken out of training, and then named by text alone.

python -m training.starter.left_out --media DIR --work DIR --results results.json      # adds its rows to those of bindery-eval
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import numpy as np
import typer

from training.assembly import Places
from training.cli import console
from training.data.manifest import read_manifest
from training.evaluation.encoders import TowerEncoder
from training.evaluation.figures import measure
from training.evaluation.report import as_json
from training.evaluation.task import Task, read_tasks
from training.recipe import read_recipe
from training.starter.__main__ import RECIPES, media_of
from training.trainer import train

PICTURES = 20
SOUNDS = ("crackling fire", "dog", "helicopter")
"""One of nature, one of an animal, one of a machine. Their captions are withheld; the unlabelled lessons may hold them."""
FIFTY = "ESC-10 sounds, the 50 names of ESC-50"


@dataclass(frozen=True, slots=True)
class Probe:
    """``left``: labels that a tower is trained without. ``tasks``: what it is then asked."""

    modality: str
    left: tuple[str, ...]
    tasks: tuple[Task, ...]


def pictures(media: Path, seed: int) -> Probe:
    """Labels of Caltech-101, drawn at random."""
    manifests = {"manifests": {"image": "image/manifest.csv"}, "source": "Caltech-101"}
    items = read_manifest(media / "image/manifest.csv", split="val")
    known = sorted({item.label for item in items if item.source == manifests["source"]})
    left = tuple(sorted(np.random.default_rng([seed, 4]).choice(known, PICTURES, replace=False).tolist()))
    among_themselves = f"pictures of {PICTURES} labels left out of training, {PICTURES} names"
    return Probe(
        "image",
        left,
        (
            Task(name=among_themselves, modality="image", layout="manifest", where={**manifests, "labels": left}),
            Task(name="the same tower, 100 names", modality="image", layout="manifest", where=manifests),
        ),
    )


def sounds(media: Path) -> Probe:
    """Three labels of ESC-10, among the ten and among the names of ESC-50."""
    where = {"manifests": {"audio": "audio/manifest.csv"}, "source": "ESC-10"}
    items = read_manifest(media / "audio/manifest.csv", split="val")
    ten = tuple(sorted({item.label for item in items if item.source == where["source"]}))
    (fifty,) = [task.among for task in read_tasks("starter") if task.name == FIFTY]
    left = {**where, "labels": SOUNDS}
    return Probe(
        "audio",
        SOUNDS,
        (
            Task(name="sounds of 3 labels left out of training, 10 names", modality="audio", layout="manifest", where=left, among=ten),
            Task(name="the same sounds, the 50 names of ESC-50", modality="audio", layout="manifest", where=left, among=fifty),
            Task(name="all sounds by the same tower, 10 names", modality="audio", layout="manifest", where=where),
        ),
    )


def command(
    media: Annotated[Path, typer.Option(help="the starter's media")],
    work: Annotated[Path, typer.Option(help="working directory of training.starter, whose towers it starts from")],
    results: Annotated[Path, typer.Option(help="results.json of bindery-eval, to which the rows are added")],
    seed: Annotated[int, typer.Option(help="of the draw")] = 0,
    only: Annotated[list[str] | None, typer.Option(help="this modality only; may be repeated")] = None,
) -> None:
    """Train the towers of pictures and sounds once more without some labels, and measure them on these."""
    document = json.loads(results.read_text(encoding="utf-8"))
    for probe in (pictures(media, seed), sounds(media)):
        if only and probe.modality not in only:
            continue
        measured = _measured(probe, media, work)
        names = {task.name for task in probe.tasks}
        document["rows"] = [row for row in document["rows"] if row["task"] not in names] + measured
        document.setdefault("left_out_labels", {})[probe.modality] = list(probe.left)
    results.write_text(json.dumps(document, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def _measured(probe: Probe, media: Path, work: Path) -> list[dict[str, object]]:
    """Rows of a tower that is trained without the labels."""
    folder = work / "left_out" / probe.modality
    folder.mkdir(parents=True, exist_ok=True)
    recipe = read_recipe(RECIPES / f"{probe.modality}.toml")
    without = recipe.model_copy(update={"data": recipe.data.model_copy(update={"skip_labels": probe.left})})
    console.print(f"{probe.modality} without {', '.join(probe.left)}")
    train(without, Places(media_of(probe.modality, media, work), work / "towers", folder / probe.modality, work / "features"))
    if not (folder / "text").exists():
        (folder / "text").symlink_to((work / "towers/text").resolve())
    encoder = TowerEncoder(folder)
    rows: list[dict[str, object]] = as_json(encoder, probe.tasks, measure(encoder, probe.tasks, media))["rows"]
    return rows


if __name__ == "__main__":
    typer.run(command)
