"""What a bundle is worth: zero-shot accuracy and retrieval on labelled media, through `bindery.load` as users call it.

python -m training.evaluate --bundle starter --media DIR            # the table of the model card, as Markdown
python -m training.evaluate --bundle starter --media DIR --out results.json
"""

from __future__ import annotations

import json
import tomllib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field
from rich.console import Console

from bindery.embedder import Embedder, load
from bindery.errors import BinderyError
from bindery.vectors import Vectors
from bindery.zeroshot import expand_labels, label_vectors
from training.data.manifest import Item, ManifestError, read_manifest
from training.data.shards import Files
from training.metrics import Share, recall_at, top_k

TASKS = Path(__file__).parent / "recipes" / "starter" / "tasks.toml"


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class LabelSet(_Part):
    """Items of one source, each to be named among the labels of them all, by text alone."""

    name: str
    modality: str
    manifest: str
    source: str = Field(description="which rows of the manifest; the others have labels of another kind")
    names: dict[str, str] = Field({}, description="label → the words used for it; a label not named here is used as it stands")
    retrieval: bool = Field(True, description="also find items by their captions and captions by their items")


class Pairs(_Part):
    """Items of two modalities that show the same thing (`pair_id`): find the one from the other, with no text between."""

    name: str
    modality: str
    manifest: str
    to_modality: str
    to_manifest: str
    source: str


class Tasks(_Part):
    label_sets: tuple[LabelSet, ...] = ()
    pairs: tuple[Pairs, ...] = ()


@dataclass(frozen=True, slots=True)
class Row:
    """One line of the table: a figure with what it was measured on."""

    task: str
    modality: str
    figure: str
    share: Share
    among: int
    chance: float
    skipped: int


def read_tasks(path: Path) -> Tasks:
    return Tasks.model_validate(tomllib.loads(path.read_text(encoding="utf-8")))


def evaluate(embedder: Embedder, tasks: Tasks, media: Path, *, split: str = "val") -> list[Row]:
    """All figures of all tasks whose modalities the bundle has. Unreadable items are left out and counted."""
    vectors = _Vectors(embedder)
    rows: list[Row] = []
    for task in tasks.label_sets:
        if task.modality in embedder.modalities:
            items = [item for item in read_manifest(media / task.manifest, split=split) if item.source == task.source]
            rows += _zero_shot(vectors, task, items)
            rows += _retrieval(vectors, task, items) if task.retrieval else []
    for pairs in tasks.pairs:
        if {pairs.modality, pairs.to_modality} <= set(embedder.modalities):
            rows += _pairs(vectors, pairs, media, split)
    return rows


class _Vectors:
    """Vectors of items and texts, each computed once."""

    def __init__(self, embedder: Embedder) -> None:
        self.embedder = embedder
        self._files = Files()
        self._known: dict[tuple[str, Path, str], Vectors | BinderyError] = {}

    def media(self, modality: str, items: Sequence[Item]) -> tuple[list[Item], Vectors]:
        """The readable items and their vectors."""
        new = [item for item in items if (modality, item.root, item.path) not in self._known]
        sources = [self._files.source(item) for item in new]
        for item, vector in zip(new, self.embedder.embed_each(modality, sources), strict=True):
            self._known[modality, item.root, item.path] = vector
        read = [(item, vector) for item in items if not isinstance(vector := self._known[modality, item.root, item.path], BinderyError)]
        empty = np.empty((0, self.embedder.dimension), dtype=np.float32)
        return [item for item, _ in read], np.stack([vector for _, vector in read]) if read else empty

    def labels(self, modality: str, words: Sequence[str]) -> Vectors:
        prompts = self.embedder.bundle.modality(modality).prompts
        return label_vectors(self.texts(expand_labels(words, prompts)), len(prompts))

    def texts(self, words: Sequence[str]) -> Vectors:
        return self.embedder.embed(self.embedder.bundle.text_modality(), list(words))


def _zero_shot(vectors: _Vectors, task: LabelSet, items: Sequence[Item]) -> list[Row]:
    labels = sorted({item.label for item in items})
    read, found = vectors.media(task.modality, items)
    scores = found @ vectors.labels(task.modality, [task.names.get(label, label) for label in labels]).T  # (items, labels)
    right = [labels.index(item.label) for item in read]
    return [
        Row(task.name, task.modality, f"top-{k}", top_k(scores, right, k), len(labels), min(1.0, k / len(labels)), len(items) - len(read))
        for k in (1, 5)
    ]


def _retrieval(vectors: _Vectors, task: LabelSet, items: Sequence[Item]) -> list[Row]:
    """Captions find their items and items their captions. Several items may have one caption: each of them is right."""
    read, found = vectors.media(task.modality, items)
    captions = sorted({caption for item in read for caption in item.captions})
    together = np.array([[caption in item.captions for caption in captions] for item in read])  # (items, captions)
    scores = found @ vectors.texts(captions).T
    rows = []
    for figure, matrix, belong in (("caption → item", scores.T, together.T), ("item → caption", scores, together)):
        rows += [_recall(task.name, task.modality, figure, matrix, belong, k, len(items) - len(read)) for k in (1, 5, 10)]
    return rows


def _pairs(vectors: _Vectors, task: Pairs, media: Path, split: str) -> list[Row]:
    def side(modality: str, manifest: str) -> tuple[list[Item], Vectors]:
        items = read_manifest(media / manifest, split=split)
        return vectors.media(modality, [item for item in items if item.pair_id and item.source == task.source])

    left, queries = side(task.modality, task.manifest)
    right, candidates = side(task.to_modality, task.to_manifest)
    together = np.array([[a.pair_id == b.pair_id for b in right] for a in left])
    scores = queries @ candidates.T
    modality = f"{task.modality} → {task.to_modality}"
    return [_recall(task.name, modality, modality, scores, together, k, 0) for k in (1, 10)]


def _recall(name: str, modality: str, figure: str, scores: NDArray[Any], together: NDArray[np.bool_], k: int, skipped: int) -> Row:
    among = scores.shape[1]
    # The chance that k drawn at random hold one of a query's own, on average over the queries
    wrong = among - together.sum(axis=1)
    missed = np.prod([np.maximum(wrong - i, 0) / (among - i) for i in range(min(k, among))], axis=0)
    return Row(name, modality, f"{figure}, R@{k}", recall_at(scores, together, k), among, float(1 - missed.mean()), skipped)


def as_json(embedder: Embedder, rows: Sequence[Row], split: str) -> dict[str, Any]:
    bundle = embedder.bundle
    return {
        "bundle": {"name": bundle.name, "version": bundle.manifest.version, "space": bundle.manifest.space},
        "split": split,
        "rows": [
            {
                "task": row.task,
                "modality": row.modality,
                "figure": row.figure,
                "share": round(row.share.value, 4),
                "interval95": [round(edge, 4) for edge in row.share.interval],
                "hits": row.share.hits,
                "n": row.share.n,
                "among": row.among,
                "chance": round(row.chance, 4),
                "skipped": row.skipped,
            }
            for row in rows
        ],
    }


def as_markdown(results: dict[str, Any], figures: Sequence[str] | None = None) -> str:
    """A table of the results of `as_json`; ``figures``: only those."""
    lines = [
        "| task | modality | figure | measured | 95 % interval | n | among | chance |",
        "| --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    for row in results["rows"]:
        if figures is None or row["figure"] in figures:
            low, high = row["interval95"]
            lines.append(
                f"| {row['task']} | {row['modality']} | {row['figure']} | {row['share']:.2f} | {low:.2f} – {high:.2f} "
                f"| {row['n']} | {row['among']} | {row['chance']:.2f} |"
            )
    return "\n".join(lines) + "\n"


app = typer.Typer(add_completion=False)


@app.command()
def command(
    media: Annotated[Path, typer.Option(help="directory of the tasks' manifests")],
    bundle: Annotated[str, typer.Option(help="name or directory of a bundle")] = "starter",
    tasks: Annotated[Path, typer.Option(help="TOML file of label sets and pairs")] = TASKS,
    split: Annotated[str, typer.Option()] = "val",
    out: Annotated[Path | None, typer.Option(help="write JSON here too")] = None,
    threads: Annotated[int | None, typer.Option(help="threads of the runtime")] = None,
) -> None:
    """Measure a bundle and print the table."""
    try:
        embedder = load(bundle, device="cpu", threads=threads)
        results = as_json(embedder, evaluate(embedder, read_tasks(tasks), media, split=split), split)
    except (BinderyError, ManifestError) as error:
        Console(stderr=True).print(f"error: {error}", markup=False)
        raise typer.Exit(2) from error
    if out is not None:
        out.parent.mkdir(parents=True, exist_ok=True)
        out.write_text(json.dumps(results, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    Console(soft_wrap=True).print(as_markdown(results), markup=False, highlight=False)


if __name__ == "__main__":
    app()
