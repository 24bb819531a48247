"""The starter's model card: fixed words, measured figures, counted data, credited makers.

python -m training.starter.card --media DIR --results results.json --out MODEL_CARD.md
"""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from string import Template
from typing import Annotated, Any

import typer

from training.data.manifest import Item, read_manifest, without_licences
from training.evaluation.report import as_markdown
from training.recipe import read_recipe
from training.starter.__main__ import MODALITIES, RECIPES

WORDS = RECIPES / "card.md"


def used_items(media: Path) -> dict[str, list[Item]]:
    """Modality → the items that its recipe trains on (those held out for calibration included)."""
    used = {}
    for modality in MODALITIES:
        data = read_recipe(RECIPES / f"{modality}.toml").data
        used[modality] = without_licences(read_manifest(media / data.manifest, split=data.split), data.skip_licences)
    return used


def data_table(used: dict[str, list[Item]]) -> str:
    lines = ["| modality | source | licence | items |", "| --- | --- | --- | --- |"]
    for modality, items in used.items():
        counts = Counter((item.source, item.licence) for item in items)
        lines += [f"| {modality} | {source} | {licence} | {count} |" for (source, licence), count in sorted(counts.items())]
    return "\n".join(lines)


def credit_lines(used: dict[str, list[Item]]) -> str:
    """One line a source: whose work it is. Everything that was trained on is named, whether its licence asks for it or not."""
    makers: dict[str, set[str]] = {}
    for items in used.values():
        for item in items:
            makers.setdefault(item.source, set()).add(item.attribution)
    return "\n".join(f"- **{source}**: {'; '.join(sorted(names, key=str.lower))}" for source, names in sorted(makers.items()))


def model_card(words: str, media: Path, results: dict[str, Any]) -> str:
    used = used_items(media)
    return Template(words).substitute(
        accuracy=as_markdown(results, ("top-1", "top-5")),
        retrieval=as_markdown(
            results, ("caption → item, R@1", "caption → item, R@10", "item → caption, R@10", "image → depth, R@1", "image → depth, R@10")
        ),
        left_out=", ".join(results.get("left_out_labels", ())),
        data=data_table(used),
        credits=credit_lines(used),
    )


def command(
    media: Annotated[Path, typer.Option(help="the media that the starter was trained on")],
    results: Annotated[Path, typer.Option(help="results.json of bindery-eval")],
    out: Annotated[Path, typer.Option(help="Markdown file to write")],
) -> None:
    """Write the model card."""
    measured = json.loads(results.read_text(encoding="utf-8"))
    out.write_text(model_card(WORDS.read_text(encoding="utf-8"), media, measured), encoding="utf-8")


if __name__ == "__main__":
    typer.run(command)
