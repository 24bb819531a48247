"""The starter's model card: fixed words, measured figures, counted data, credited makers.

python -m training.starter.card --media DIR --results results.json --own own.json [--previous results.json] --out MODEL_CARD.md
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from string import Template
from typing import Annotated, Any

import typer

from training.data.manifest import Item
from training.evaluation.report import as_markdown
from training.starter.__main__ import MODALITIES, RECIPES, items_of

WORDS = RECIPES / "card.md"
RETRIEVAL = (
    "caption → item, R@1",
    "caption → item, R@10",
    "item → caption, R@10",
    "image → depth, R@1",
    "image → depth, R@10",
    "audio → image, R@1",
    "audio → image, R@10",
)
CALIBRATION = (
    "calibration error",
    "calibration error at scale 100",
    "not called unknown, own label offered",
    "called unknown, own label not offered",
)


def used_items(media: Path) -> dict[str, list[Item]]:
    """Modality → the items that its recipe trains on (those held out for calibration included)."""
    return {modality: items_of(modality, media) for modality in MODALITIES}


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


def beside_previous(results: dict[str, Any], previous: dict[str, Any] | None) -> dict[str, Any]:
    """The results with, at each figure that the previous version has too, what that one reached."""
    if previous is None:
        return results
    before = {(row["task"], row["figure"]): row["value"] for row in previous["rows"]}
    name = f"version {previous['bundle']['version']}"
    rows = [
        row | {"published": [{"model": name, "value": before[key]}] if (key := (row["task"], row["figure"])) in before else []}
        for row in results["rows"]
    ]
    return results | {"rows": rows}


def own_table(answers: Sequence[dict[str, Any]]) -> str:
    """What came out for the files of `training.starter.own_files`, right and wrong."""
    lines = ["| file | made by | asked among | answered | right |", "| --- | --- | --- | --- | --- |"]
    for one in answers:
        said = "; ".join(f"{best['label']} {best['probability']:.2f}" for best in one["best"])
        verdict = "yes" if one["hit"] else f"no: {one['right']}"
        hint = " (marked unknown)" if one["unknown"] else ""
        lines.append(f"| {one['file']} ({one['modality']}) | {one['made']} | {', '.join(one['labels'])} | {said}{hint} | {verdict} |")
    return "\n".join(lines)


def model_card(
    words: str, media: Path, results: dict[str, Any], own: Sequence[dict[str, Any]], previous: dict[str, Any] | None = None
) -> str:
    used, results = used_items(media), beside_previous(results, previous)
    return Template(words).substitute(
        accuracy=as_markdown(results, ("top-1", "top-5"), others="before"),
        retrieval=as_markdown(results, RETRIEVAL, others="before"),
        calibration=as_markdown(results, CALIBRATION, others="before"),
        own=own_table(own),
        own_right=f"{sum(one['hit'] for one in own)} of {len(own)}",
        left_out=", ".join(results.get("left_out_labels", {}).get("image", ())),
        left_out_sounds=", ".join(results.get("left_out_labels", {}).get("audio", ())),
        data=data_table(used),
        credits=credit_lines(used),
    )


def command(
    media: Annotated[Path, typer.Option(help="the media that the starter was trained on")],
    results: Annotated[Path, typer.Option(help="results.json of bindery-eval")],
    own: Annotated[Path, typer.Option(help="what training.starter.own_files wrote")],
    out: Annotated[Path, typer.Option(help="Markdown file to write")],
    previous: Annotated[Path | None, typer.Option(help="results.json of the version before")] = None,
) -> None:
    """Write the model card."""
    measured, answers = (json.loads(path.read_text(encoding="utf-8")) for path in (results, own))
    before = None if previous is None else json.loads(previous.read_text(encoding="utf-8"))
    out.write_text(model_card(WORDS.read_text(encoding="utf-8"), media, measured, answers, before), encoding="utf-8")


if __name__ == "__main__":
    typer.run(command)
