"""Pictures of the figures: bars beside chance and the published ones, and who was taken for whom. Needs matplotlib (the extra `plot`)."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from training.evaluation.figures import Confusion

_MOST_LABELS = 60
"""Beyond these a confusion picture has no room for names."""


def draw(results: dict[str, Any], confusions: list[Confusion], directory: Path) -> list[Path]:
    """Write `figures.png` and a `confusion-….png` a task; returns the files."""
    directory.mkdir(parents=True, exist_ok=True)
    return [_bars(results, directory / "figures.png"), *(_confusion(one, directory) for one in confusions)]


def _bars(results: dict[str, Any], path: Path) -> Path:
    from matplotlib.figure import Figure

    rows = [row for row in results["rows"] if not row["figure"].endswith("median rank")]
    figure = Figure(figsize=(9, 1.2 + 0.32 * len(rows)), layout="constrained")
    axes = figure.add_subplot()
    for place, row in enumerate(rows):
        low, high = row["interval95"] or (row["value"], row["value"])
        error = [[row["value"] - low], [high - row["value"]]]
        axes.barh(place, row["value"], xerr=error, color="#3b6ea5", ecolor="#222222", height=0.6, label="measured" if place == 0 else None)
        if row["chance"] is not None:
            axes.plot([row["chance"]] * 2, [place - 0.4, place + 0.4], color="#b04a3a", label="chance" if place == 0 else None)
        for one in row.get("published", []):
            axes.plot(one["value"], place, marker="D", color="#e0a020", markersize=5, linestyle="none")
            axes.annotate(one["model"], (one["value"], place), xytext=(4, 4), textcoords="offset points", fontsize=6)
    axes.set_yticks(range(len(rows)), [f"{row['task']}: {row['figure']}" for row in rows], fontsize=8)
    axes.set_xlim(0, 1.02)
    axes.margins(y=0.01)
    axes.invert_yaxis()
    axes.set_title(f"{results['bundle']['name']}: measured, with 95 % intervals (diamonds: published)", fontsize=9)
    axes.legend(loc="lower right", fontsize=7)
    figure.savefig(path, dpi=120)
    return path


def _confusion(confusion: Confusion, directory: Path) -> Path:
    from matplotlib.figure import Figure

    n = len(confusion.labels)
    side = min(14.0, 2.5 + 0.25 * n)
    figure = Figure(figsize=(side, side), layout="constrained")
    axes = figure.add_subplot()
    shares = confusion.counts / confusion.counts.sum(axis=1, keepdims=True).clip(min=1)
    axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    if n <= _MOST_LABELS:
        axes.set_xticks(range(n), confusion.labels, rotation=90, fontsize=7)
        axes.set_yticks(range(n), confusion.labels, fontsize=7)
    axes.set_xlabel("called")
    axes.set_ylabel("is")
    axes.set_title(confusion.task, fontsize=9)
    path = directory / f"confusion-{re.sub(r'[^a-z0-9]+', '-', confusion.task.lower()).strip('-')}.png"
    figure.savefig(path, dpi=120)
    return path
