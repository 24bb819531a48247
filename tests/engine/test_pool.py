"""The decoder processes, fed with what kills, stalls and breaks them."""

from __future__ import annotations

import ctypes
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from bindery.engine.pool import DecodePool
from bindery.engine.worker import Task
from bindery.errors import DecoderKilled, UnreadableMedia
from bindery.limits import Limits
from bindery.media.source import Source
from bindery.spec import ImageOptions, ImageSpec

ELEPHANT = Path(__file__).parents[2] / "examples/elephant.jpg"


class _Trap:
    """Stands where a source should; what happens in the decoder happens when it arrives there."""

    name = "trap.jpg"

    def __init__(self, function: Any, *arguments: Any) -> None:
        self.call = (function, arguments)

    def __reduce__(self) -> tuple[Any, ...]:
        return self.call


def picture(source: Any) -> Task:
    return Task(source, ImageSpec(), ImageOptions())


@pytest.fixture
def replaced() -> list[str]:
    return []


@pytest.fixture
def pool(replaced: list[str]) -> Iterator[DecodePool]:
    pool = DecodePool(1, Limits(decode_seconds=2), replaced.append)
    pool.start()
    yield pool
    pool.stop()


def test_a_decoder_gives_the_tensor_that_this_process_would(pool: DecodePool) -> None:
    from bindery.kinds import KINDS

    prepare = KINDS["image"].prepare
    assert prepare is not None
    here = prepare(Source.of(ELEPHANT), ImageSpec(), ImageOptions(), Limits())
    there = pool.submit(picture(Source.of(ELEPHANT)), None).result(10)
    assert (there.tensors["pixel_values"] == here.tensors["pixel_values"]).all()
    assert there.usage == here.usage


@pytest.mark.parametrize(
    ("trap", "reason", "message"),
    [(_Trap(os._exit, 1), "crashed", "ended its process"), (_Trap(time.sleep, 60), "timeout", "longer than 2 s")],
    ids=["crash", "stall"],
)
def test_a_dead_or_stuck_decoder_fails_its_item_and_is_replaced(
    pool: DecodePool, replaced: list[str], trap: _Trap, reason: str, message: str
) -> None:
    before = pool.submit(picture(Source.of(ELEPHANT)), None)
    hostile = pool.submit(picture(trap), None)
    after = pool.submit(picture(Source.of(ELEPHANT)), None)
    with pytest.raises(DecoderKilled, match=message):
        hostile.result(20)
    assert before.result(20).tensors.keys() == after.result(20).tensors.keys()
    assert replaced == [reason]


def test_an_item_without_a_picture_in_it_fails_alone(pool: DecodePool, replaced: list[str]) -> None:
    junk = pool.submit(picture(Source.of(ELEPHANT.read_bytes()[:500], name="half.jpg")), None)
    with pytest.raises(UnreadableMedia, match=r"half\.jpg"):
        junk.result(10)
    assert replaced == []


@pytest.mark.skipif(not hasattr(ctypes.CDLL(None), "mallopt"), reason="the C library gives freed memory back as it likes")
def test_a_decoder_keeps_its_memory_for_the_next_picture(pool: DecodePool, tmp_path: Path) -> None:
    file = tmp_path / "large.jpg"
    Image.new("RGB", (1280, 960), (10, 200, 90)).save(file)

    def page_faults() -> int:
        (worker,) = pool._living
        return int(Path(f"/proc/{worker.process.pid}/stat").read_text().rpartition(")")[2].split()[7])

    def decode(times: int) -> None:
        for _ in range(times):
            pool.submit(picture(Source.of(file)), None).result(10)

    decode(5)
    before = page_faults()
    decode(10)
    assert page_faults() - before < 10 * 200  # the decoded bytes alone have 900 pages


def test_a_file_that_needs_too_much_memory_fails_and_the_next_one_works(replaced: list[str]) -> None:
    pool = DecodePool(1, Limits(decode_memory_bytes=64 * 1024 * 1024), replaced.append)
    pool.start()
    try:
        with pytest.raises(DecoderKilled):
            pool.submit(picture(_Trap(bytearray, 10**9)), None).result(20)
        assert pool.submit(picture(Source.of(ELEPHANT)), None).result(20).usage["pixels"] > 0
    finally:
        pool.stop()
