"""`bindery classify`: files against labels given in words."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

import typer

from bindery.cli.console import complain, exit_code, note, print_json, print_table
from bindery.cli.options import Bundle, Device, Options, Precision, Threads, open_model, parse_pairs, settings_of
from bindery.errors import BinderyError


class Format(StrEnum):
    TABLE = "table"
    JSON = "json"


def classify(
    inputs: Annotated[list[str], typer.Argument(help="Files; with a text modality: texts.")],
    modality: Annotated[str, typer.Option("--modality", help="What the inputs are: a modality of the bundle.")],
    label: Annotated[list[str], typer.Option("--label", help="A label in words. Repeatable.")],
    template: Annotated[
        list[str] | None, typer.Option("--template", help="A prompt with {} for the label. Repeatable. [default: the bundle's]")
    ] = None,
    top_k: Annotated[int, typer.Option("--top-k", min=1, help="How many labels to show, best first.")] = 5,
    format: Annotated[Format, typer.Option("--format")] = Format.TABLE,
    bundle: Bundle = None,
    option: Options = None,
    device: Device = None,
    precision: Precision = None,
    threads: Threads = None,
) -> None:
    """Which of the labels fits best? Probabilities are over the labels given and sum to 1."""
    from bindery.zeroshot import probabilities, unknown

    model = open_model(settings_of(bundle=bundle, device=device, precision=precision, threads=threads))
    options = parse_pairs(option)
    items: list[dict[str, object]] = []
    rows: list[tuple[str, str, str]] = []
    entry = model.bundle.modality(modality)
    classes = model.label_vectors(modality, label, template)
    failed = 0
    for index, (name, result) in enumerate(zip(inputs, model.embed_each(modality, inputs, **options), strict=True)):
        if isinstance(result, BinderyError):
            complain(result, name)
            failed += 1
            items.append({"index": index, "name": name, "error": {"code": result.code, "message": result.detail}})
            continue
        chances = probabilities(result[None], classes, entry.logit_scale or 1.0)[0]  # (labels,)
        best = sorted(zip(label, chances.tolist(), strict=True), key=lambda pair: -pair[1])[:top_k]
        items.append({"index": index, "name": name, "labels": [{"label": text, "probability": share} for text, share in best]})
        if entry.min_similarity is not None:
            items[-1]["unknown"] = strange = bool(unknown(result[None], classes, entry.min_similarity)[0])
            if strange:
                note(f"{name}: probably none of these labels")
        rows += [(name if place == 0 else "", text, f"{share:.4f}") for place, (text, share) in enumerate(best)]
    if format is Format.JSON:
        print_json({"model": model.bundle.name, "modality": modality, "items": items})
    elif rows:
        print_table(("input", "label", "probability"), rows)
    raise typer.Exit(exit_code(len(inputs), failed))
