"""Validation, early stopping, the best weights, and what a run leaves to look at."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from tests.training.test_trainer import _recipe, places  # noqa: F401  (a fixture)
from training.assembly import Places
from training.data.batches import Decoder
from training.data.manifest import read_manifest
from training.losses import contrastive_loss, positives
from training.record import Record, plot
from training.text import PackageText
from training.towers.package import load_tower
from training.trainer import Saving, Trained, train


def _run(places: Places, watch: dict[str, Any], *, epochs: int = 4, rate: float = 3e-3, warmup: int = 0, **options: Any) -> Trained:  # noqa: F811
    recipe = _recipe(
        {"start": "vit", "train": "full"},
        data={"manifest": "manifest.csv", "validation": "val", "templates": ["a photo of {}"]},
        loss={"positives": "same_caption"},
        watch=watch,
        optim={"epochs": epochs, "batch": 20, "rate": rate, "warmup_steps": warmup},
    )
    return train(recipe, places, **options)


def _history(places: Places) -> dict[str, list[tuple[int, float]]]:  # noqa: F811
    read: dict[str, list[tuple[int, float]]] = json.loads((places.out / "history.json").read_text())
    return read


def test_a_run_is_watched_and_leaves_its_figures(places: Places) -> None:  # noqa: F811
    trained = _run(places, {"every": 3}, epochs=8)
    history = _history(places)
    assert [step for step, _ in history["loss"]] == list(range(1, 17))
    assert [step for step, _ in history["val loss"]] == [3, 6, 9, 12, 15, 16]
    assert history["val top1"][-1][1] == pytest.approx(trained.held_out.value)
    assert trained.held_out.n == 20  # the split `val`, not a share of the training items
    assert np.mean([loss for _, loss in history["loss"][-3:]]) < np.mean([loss for _, loss in history["loss"][:3]]) - 0.1
    assert 0 < history["val recall"][-1][1] <= 1

    events = EventAccumulator(str(places.out / "events"))
    events.Reload()
    assert set(events.Tags()["scalars"]) == {"loss", "scale", "val/loss", "val/top1", "val/recall"}
    assert [(e.step, pytest.approx(e.value, rel=1e-5)) for e in events.Scalars("val/loss")] == [tuple(row) for row in history["val loss"]]
    with Image.open(trained.plot) as picture:
        assert picture.format == "PNG"
        assert len(set(np.asarray(picture.convert("RGB")).reshape(-1, 3).sum(axis=1).tolist())) > 20  # something is drawn on it


def test_a_run_without_progress_stops_and_stays_stopped(places: Places) -> None:  # noqa: F811
    watch = {"every": 1, "measure": "top1", "patience": 3}
    trained = _run(places, watch, epochs=40, saving=Saving(every=100))
    assert trained.steps < 80
    top1 = [value for _, value in _history(places)["val top1"]]
    assert max(top1[:-3]) >= max(top1[-3:])
    assert len(trained.losses) == -(-trained.steps // 2)
    weights = load_file(trained.package / "weights.safetensors")
    again = _run(places, watch, epochs=40, saving=Saving(every=100, resume=True))
    assert again.resumed_at == again.steps == trained.steps
    assert all(torch.equal(tensor, weights[name]) for name, tensor in load_file(again.package / "weights.safetensors").items())


def test_the_best_weights_are_shipped_where_they_are_wanted(places: Places) -> None:  # noqa: F811
    trained = _run(places, {"every": 1, "keep": "best"}, epochs=4, rate=1.0, warmup=8)  # faster and faster: the last step is not the best
    figures = _history(places)["val loss"]
    best = min(value for _, value in figures)
    assert figures[-1][1] > best

    package = load_tower(trained.package)
    items = read_manifest(places.media / "manifest.csv", split="val")
    decoder = Decoder(items, package.spec)
    pixels = [tensors["pixel_values"] for i in range(len(items)) if (tensors := decoder.tensors(i)) is not None]
    with torch.no_grad():
        media = package.module()(torch.from_numpy(np.stack(pixels)))
    captions = [item.captions[0] for item in items]
    text = PackageText(load_tower(places.towers / "text")).vectors(captions)
    together = positives(captions, [item.label for item in items], "same_caption")
    assert contrastive_loss(media, text, torch.tensor(trained.logit_scale), together).item() == pytest.approx(best, abs=1e-4)


@pytest.mark.parametrize(
    ("parts", "said"),
    [
        ({"watch": {"every": 2}}, "watch.every needs"),
        ({"watch": {"patience": 2}}, "need watch.every"),
        ({"watch": {"keep": "best"}}, "need watch.every"),
        ({"data": {"manifest": "m.csv", "held_out": 0.1, "validation": "val"}}, "leave one out"),
    ],
)
def test_what_cannot_be_watched_is_refused(parts: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        _recipe({"start": "vit", "train": "full"}, **parts)


def test_what_an_interrupted_run_wrote_too_much_is_not_shown_twice(tmp_path: Path) -> None:
    first = Record(tmp_path)
    for step in range(1, 6):
        first.add(step, {"loss": float(step)})
        if step == 3:
            state = first.state()
    first.close("killed here")
    second = Record(tmp_path)
    second.restore(state, 3)
    second.add(4, {"loss": 40.0})
    second.close("resumed")
    assert json.loads((tmp_path / "history.json").read_text()) == {"loss": [[1, 1.0], [2, 2.0], [3, 3.0], [4, 40.0]]}
    events = EventAccumulator(str(tmp_path / "events"))
    events.Reload()
    assert [(event.step, event.value) for event in events.Scalars("loss")] == [(1, 1), (2, 2), (3, 3), (4, 40)]


def test_the_plot_has_losses_above_and_shares_below() -> None:
    rows = {"loss": [(n, 1 / n) for n in range(1, 201)], "val loss": [(100, 0.1), (200, 0.2)], "scale": [(1, 14.0)]}
    (above,) = plot(rows, "run").axes
    assert [line.get_label() for line in above.get_lines()] == ["loss", "val loss"]
    smoothed = np.asarray(above.get_lines()[0].get_ydata())
    assert smoothed[-1] == pytest.approx(np.mean([1 / n for n in range(197, 201)]))  # 2 % of 200 steps
    assert list(np.asarray(above.get_lines()[1].get_ydata())) == [0.1, 0.2]
    _, below = plot({**rows, "val top1": [(100, 0.5)]}, "run").axes
    assert [line.get_label() for line in below.get_lines()] == ["val top1"]
