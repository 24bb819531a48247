"""What a run leaves to look at: TensorBoard event files, its history as JSON, and a plot of loss and accuracy."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray
from torch.utils.tensorboard import SummaryWriter

HISTORY = "history.json"
PLOT = "training.png"
EVENTS = "events"

_SMOOTH = 0.02
"""Share of the steps that the plotted training loss is averaged over."""


class Record:
    """Figures by name, each a row of (step, value)."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._rows: dict[str, list[tuple[int, float]]] = {}
        self._writer: SummaryWriter | None = None
        self._from = 0

    def add(self, step: int, numbers: Mapping[str, float]) -> None:
        """``step``: how many are done."""
        if self._writer is None:
            # What an interrupted run wrote after its last checkpoint is taken again and must not be shown twice.
            self._writer = SummaryWriter(str(self._directory / EVENTS), purge_step=self._from + 1 if self._from else None)
        for name, value in numbers.items():
            self._rows.setdefault(name, []).append((step, value))
            self._writer.add_scalar(name.replace(" ", "/"), value, step)

    def close(self, title: str) -> Path:
        """Write the history and the plot; returns the plot's path."""
        if self._writer is not None:
            self._writer.close()
        self._directory.mkdir(parents=True, exist_ok=True)
        (self._directory / HISTORY).write_text(json.dumps(self._rows) + "\n", encoding="utf-8")
        path = self._directory / PLOT
        plot(self._rows, title).savefig(path, dpi=120)
        return path

    def state(self) -> dict[str, Any]:
        return {name: list(rows) for name, rows in self._rows.items()}

    def restore(self, state: dict[str, Any], done: int) -> None:
        self._rows = {name: list(rows) for name, rows in state.items()}
        self._from = done


def plot(rows: Mapping[str, Sequence[tuple[int, float]]], title: str) -> Figure:
    """Losses above; below, shares of right answers, where there are any."""
    shares = {name: points for name, points in rows.items() if name in {"val top1", "val recall"}}
    losses = {name: points for name, points in rows.items() if name not in shares and name not in {"scale", "rate"}}
    figure = Figure(figsize=(7, 6 if shares else 3.5), layout="constrained")
    axes: list[Axes] = list(figure.subplots(2 if shares else 1, 1, sharex=True, squeeze=False)[:, 0])
    for name, points in losses.items():
        steps, values = zip(*points, strict=True)
        validated = name.startswith("val")
        axes[0].plot(steps, values if validated else _smooth(values), label=name, marker="o" if validated else None, markersize=3)
    axes[0].set(title=title, ylabel="loss, nats")
    for name, points in shares.items():
        axes[1].plot(*zip(*points, strict=True), label=name, marker="o", markersize=3)
    if shares:
        axes[1].set(ylabel="share right", ylim=(0, 1))
    axes[-1].set(xlabel="step")
    for one in axes:
        one.grid(alpha=0.3)
        if one.get_legend_handles_labels()[0]:
            one.legend()
    return figure


def _smooth(values: Sequence[float]) -> NDArray[np.float64]:
    """Mean of each value and of those shortly before it."""
    window = max(1, round(len(values) * _SMOOTH))
    sums = np.concatenate([[0.0], np.cumsum(values)])
    ends = np.arange(1, len(sums))
    starts = np.maximum(0, ends - window)
    return (sums[ends] - sums[starts]) / (ends - starts)
