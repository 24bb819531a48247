"""Figures as JSON, and as a Markdown table beside chance and what was published."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from training.evaluation.encoders import Encodes
from training.evaluation.figures import Confusion, Measured, Row
from training.evaluation.task import Task


def as_json(encoder: Encodes, tasks: Sequence[Task], measured: Measured) -> dict[str, Any]:
    published: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for task in tasks:
        for one in task.published:
            published.setdefault((task.name, one.figure), []).append({"model": one.model, "value": one.value})
    return {
        "bundle": encoder.about,
        "rows": [_row(row) | {"published": published.get((row.task, row.figure), [])} for row in measured.rows],
        "classes": [one for confusion in measured.confusions for one in _classes(confusion)],
        "errors": measured.errors,
        "left_out": measured.left_out,
    }


def as_markdown(results: dict[str, Any], figures: Sequence[str] | None = None, *, others: str = "published") -> str:
    """A table of the results of `as_json`; ``figures``: only those; ``others``: what the last column is called, where there is one."""
    rows = [row for row in results["rows"] if figures is None or row["figure"] in figures]
    beside = any(row.get("published") for row in rows)
    head = ["task", "modality", "figure", "measured", "95 % interval", "n", "among", "chance", *([others] if beside else [])]
    lines = [_line(head), _line(["---"] * len(head))]
    for row in rows:
        rank = row["figure"].endswith("median rank")
        interval = "" if row["interval95"] is None else "{:.2f} – {:.2f}".format(*row["interval95"])
        cells = [row["task"], row["modality"], row["figure"], f"{row['value']:.1f}" if rank else f"{row['value']:.2f}", interval]
        chance = "" if row["chance"] is None else f"{row['chance']:.1f}" if rank else f"{row['chance']:.2f}"
        cells += [str(row["n"]), str(row["among"]), chance]
        if beside:
            cells.append("; ".join(f"{one['model']}: {one['value']:g}" for one in row["published"]))
        lines.append(_line(cells))
    return "\n".join(lines) + "\n"


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _row(row: Row) -> dict[str, Any]:
    return {
        "task": row.task,
        "modality": row.modality,
        "figure": row.figure,
        "value": round(row.value, 4),
        "interval95": None if row.interval is None else [round(edge, 4) for edge in row.interval],
        "hits": row.hits,
        "n": row.n,
        "among": row.among,
        "chance": None if row.chance is None else round(row.chance, 4),
        "skipped": row.skipped,
    }


def _classes(confusion: Confusion) -> list[dict[str, Any]]:
    """Each label: how many of its items were called by it, and what the others were called most."""
    classes = []
    for index, label in enumerate(confusion.labels):
        counts = confusion.counts[index]
        wrong = np.where(np.arange(len(counts)) == index, 0, counts)
        taken_for = confusion.labels[int(wrong.argmax())] if wrong.any() else None
        classes.append(
            {"task": confusion.task, "label": label, "right": int(counts[index]), "n": int(counts.sum()), "most_taken_for": taken_for}
        )
    return classes
