from __future__ import annotations

from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from bindery.kinds import KINDS, parse_options
from bindery.limits import Limits
from bindery.media.source import Source
from bindery.spec import ImageSpec, TextSpec
from tests.training.toyset import make_pictures
from training.data.augment import Augment
from training.data.batches import Batch, Decoder, Examples, MediaBatches, epoch_draws, epoch_order
from training.data.manifest import read_manifest

SPEC = ImageSpec(size=16)


def _batches(
    manifest: Path, *, seed: int = 0, threads: int = 1, how: Augment | None = None, workers: int = 0
) -> tuple[Decoder, MediaBatches]:
    decoder = Decoder(read_manifest(manifest), SPEC)
    made = MediaBatches(
        decoder, batch=6, seed=seed, how=how or Augment(flip=True, gain=0.2), templates=["a photo of {}"], threads=threads, workers=workers
    )
    return decoder, made


def _same(left: list[Batch], right: list[Batch]) -> bool:
    return len(left) == len(right) and all(
        a.captions == b.captions and torch.equal(a.inputs["pixel_values"], b.inputs["pixel_values"])
        for a, b in zip(left, right, strict=True)
    )


def test_the_seed_and_the_epoch_decide_and_threads_do_not(tmp_path: Path) -> None:
    manifest = make_pictures(tmp_path, each=4)
    first = list(_batches(manifest)[1].epoch(0))
    assert _same(first, list(_batches(manifest, threads=3)[1].epoch(0)))
    assert not _same(first, list(_batches(manifest)[1].epoch(1)))
    assert not _same(first, list(_batches(manifest, seed=1)[1].epoch(0)))


def test_an_epoch_has_full_batches_of_different_items(tmp_path: Path) -> None:
    _, batches = _batches(make_pictures(tmp_path, each=5))
    epoch = list(batches.epoch(0))
    assert [len(batch.captions) for batch in epoch] == [6, 6, 6]  # 20 items; 2 are left for another epoch
    assert batches.steps == 3


def test_a_file_that_cannot_be_read_is_skipped_counted_and_not_tried_again(tmp_path: Path) -> None:
    decoder, batches = _batches(make_pictures(tmp_path, each=4, bad=2))
    for epoch in range(2):
        assert sum(len(batch.captions) for batch in batches.epoch(epoch)) <= 16
    assert set(decoder.skipped) == {"bad/0.png", "bad/1.png"}
    assert decoder.skipped["bad/0.png"].startswith("UnreadableMedia")


def test_captions_are_drawn_from_the_items_own_and_the_templates(tmp_path: Path) -> None:
    _, batches = _batches(make_pictures(tmp_path, each=4))
    drawn = {
        caption
        for epoch in range(12)
        for batch in batches.epoch(epoch)
        for caption, label in zip(batch.captions, batch.labels, strict=True)
        if label == "red"
    }
    assert drawn == {"a picture of red paint", "the colour red", "a photo of red"}


def test_tensors_are_those_of_serving(tmp_path: Path) -> None:
    items = read_manifest(make_pictures(tmp_path, each=1))
    decoder = Decoder(items, SPEC, keep=True)
    tensors = decoder.tensors(2)
    assert tensors is not None
    assert tensors is decoder.tensors(2)
    prepare = KINDS["image"].prepare
    assert prepare is not None
    source = Source.of(decoder._files.source(items[2]).data or b"")
    served = prepare(source, SPEC, parse_options("image", {}), Limits()).tensors
    assert (tensors["pixel_values"] == served["pixel_values"]).all()


def test_texts_are_no_media() -> None:
    with pytest.raises(ValueError, match="kind 'text'"):
        Decoder([], TextSpec(tokenizer="tokenizer.json"))


def test_processes_give_the_batches_that_threads_give(tmp_path: Path) -> None:
    manifest = make_pictures(tmp_path, each=4, bad=2)
    decoder, in_threads = _batches(manifest)
    expected = [list(in_threads.epoch(epoch)) for epoch in range(2)]
    before = torch.get_rng_state()
    other, in_processes = _batches(manifest, workers=2)
    assert _same(expected[0], list(in_processes.epoch(0)))
    assert _same(expected[1][1:], list(in_processes.epoch(1, start=1)))
    assert other.skipped == decoder.skipped
    assert torch.equal(before, torch.get_rng_state())  # the run's own random numbers are left alone


def test_a_member_that_is_not_there_is_one_bad_item(tmp_path: Path) -> None:
    manifest = make_pictures(tmp_path, each=2)
    manifest.write_text(manifest.read_text().replace("train.tar,red/0.png", "train.tar,red/gone.png"))
    decoder, batches = _batches(manifest)
    assert sum(len(batch.captions) for batch in batches.epoch(0)) >= 5
    assert decoder.tensors(0) is None
    assert "no member" in decoder.skipped["red/0.png"]


def test_a_weight_says_how_often_an_item_is_drawn(tmp_path: Path) -> None:
    weights = [0, 1, 3, 1, 1, 1, 1, 0.5]
    items = [replace(item, weight=weight) for item, weight in zip(read_manifest(make_pictures(tmp_path, each=2)), weights, strict=True)]
    counts: Counter[int] = Counter()
    for epoch in range(100):
        draws = epoch_draws(items, 7, epoch)
        assert len(draws) == 8
        assert [(d.index, d.again) for d in draws] == [(d.index, d.again) for d in epoch_draws(items, 7, epoch)]
        counts.update(draw.index for draw in draws)
    share = 800 / 8.5
    assert counts[0] == 0
    for index, item in enumerate(items):
        assert abs(counts[index] - share * item.weight) < 25
    twice = [draw for draw in epoch_draws(items, 7, 0) if draw.index == 2]
    assert [draw.again for draw in twice] == list(range(len(twice)))
    assert len(twice) in {2, 3}
    examples = Examples(Decoder(items, SPEC), seed=7, how=Augment(gain=0.5))
    first, second = (examples[draw] for draw in twice[:2])
    assert first is not None
    assert second is not None
    assert not (first.tensors["pixel_values"] == second.tensors["pixel_values"]).all()  # each draw has its own augmentation


def test_equal_weights_leave_each_item_once() -> None:
    order = epoch_order(10, 3, 0)
    assert sorted(order) == list(range(10))
    assert (order == np.random.default_rng([3, 0]).permutation(10)).all()
