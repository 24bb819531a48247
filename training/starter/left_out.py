"""How open the starter's eyes are: labels taken out of training, and then named among each other by text alone.

python -m training.starter.left_out --media DIR --work DIR --results results.json      # adds its rows to those of bindery-eval
"""

from __future__ import annotations

import json
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
from training.evaluation.task import Task
from training.recipe import read_recipe
from training.starter.__main__ import RECIPES
from training.trainer import train

SOURCE, LABELS = "Caltech-101", 20


def command(
    media: Annotated[Path, typer.Option(help="the starter's media")],
    work: Annotated[Path, typer.Option(help="working directory of training.starter, whose towers it starts from")],
    results: Annotated[Path, typer.Option(help="results.json of bindery-eval, to which the rows are added")],
    seed: Annotated[int, typer.Option(help="of the draw")] = 0,
) -> None:
    """Train the picture tower once more without 20 labels, and measure it on them."""
    known = sorted({item.label for item in read_manifest(media / "image/manifest.csv", split="val") if item.source == SOURCE})
    left = tuple(sorted(np.random.default_rng([seed, 4]).choice(known, LABELS, replace=False).tolist()))
    folder = work / "left_out"
    folder.mkdir(parents=True, exist_ok=True)
    recipe = read_recipe(RECIPES / "image.toml")
    without = recipe.model_copy(update={"data": recipe.data.model_copy(update={"skip_labels": left})})
    console.print(f"without {', '.join(left)}")
    train(without, Places(media, work / "towers", folder / "towers/image", work / "features"))
    if not (folder / "towers/text").exists():
        (folder / "towers/text").symlink_to((work / "towers/text").resolve())
    manifests = {"manifests": {"image": "image/manifest.csv"}, "source": SOURCE}
    tasks = [
        Task(
            name=f"pictures of {LABELS} labels left out of training, {LABELS} names",
            modality="image",
            layout="manifest",
            where={**manifests, "labels": left},
        ),
        Task(name="the same tower, 100 names", modality="image", layout="manifest", where=manifests),
    ]
    encoder = TowerEncoder(folder / "towers")
    measured = as_json(encoder, tasks, measure(encoder, tasks, media))
    document = json.loads(results.read_text(encoding="utf-8"))
    names = {task.name for task in tasks}
    document["rows"] = [row for row in document["rows"] if row["task"] not in names] + measured["rows"]
    document["left_out_labels"] = list(left)
    results.write_text(json.dumps(document, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


if __name__ == "__main__":
    typer.run(command)
