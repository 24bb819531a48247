from __future__ import annotations

from pathlib import Path

import pytest
import torch

from bindery.kinds import KINDS, parse_options
from bindery.limits import Limits
from bindery.media.source import Source
from bindery.spec import ImageSpec, TextSpec
from tests.training.toyset import make_pictures
from training.data.augment import Augment
from training.data.batches import Batch, Decoder, MediaBatches
from training.data.manifest import read_manifest

SPEC = ImageSpec(size=16)


def _batches(manifest: Path, *, seed: int = 0, threads: int = 1, how: Augment | None = None) -> tuple[Decoder, MediaBatches]:
    decoder = Decoder(read_manifest(manifest), SPEC)
    made = MediaBatches(decoder, batch=6, seed=seed, how=how or Augment(flip=True, gain=0.2), templates=["a photo of {}"], threads=threads)
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
