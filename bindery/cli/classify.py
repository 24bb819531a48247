"""`bindery classify`: files against labels given in words."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated

import typer

from bindery.cli.console import complain, exit_code, print_json, print_table
from bindery.cli.options import Bundle, Device, Options, Precision, Threads, open_model, parse_pairs, settings_of
from bindery.errors import BinderyError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from bindery.embedder import Embedder


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
    model = open_model(settings_of(bundle=bundle, device=device, precision=precision, threads=threads))
    options = parse_pairs(option)
    items: list[dict[str, object]] = []
    rows: list[tuple[str, str, str]] = []
    failed = 0
    for index, (name, result) in enumerate(zip(inputs, _probabilities(model, modality, inputs, label, template, options), strict=True)):
        if isinstance(result, BinderyError):
            complain(result, name)
            failed += 1
            items.append({"index": index, "name": name, "error": {"code": result.code, "message": result.detail}})
            continue
        best = sorted(zip(label, result.tolist(), strict=True), key=lambda pair: -pair[1])[:top_k]
        items.append({"index": index, "name": name, "labels": [{"label": text, "probability": share} for text, share in best]})
        rows += [(name if place == 0 else "", text, f"{share:.4f}") for place, (text, share) in enumerate(best)]
    if format is Format.JSON:
        print_json({"model": model.bundle.name, "modality": modality, "items": items})
    elif rows:
        print_table(("input", "label", "probability"), rows)
    raise typer.Exit(exit_code(len(inputs), failed))


def _probabilities(
    model: Embedder,
    modality: str,
    inputs: Sequence[str],
    labels: Sequence[str],
    templates: Sequence[str] | None,
    options: Mapping[str, str],
) -> Iterator[NDArray[np.float32] | BinderyError]:
    """As `Embedder.classify`, but an input that fails does not fail the others."""
    from bindery.zeroshot import expand_labels, label_vectors, probabilities

    entry = model.bundle.modality(modality)
    prompts = list(templates or entry.prompts)
    texts = model.embed(model.bundle.text_modality(), expand_labels(labels, prompts))
    classes = label_vectors(texts, len(prompts))
    for result in model.embed_each(modality, inputs, **options):
        yield result if isinstance(result, BinderyError) else probabilities(result[None, :], classes, entry.logit_scale or 1.0)[0]
