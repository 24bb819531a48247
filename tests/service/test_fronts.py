"""What travels between an HTTP process and the engine's arrives as it was sent."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bindery.bundle import open_bundle
from bindery.clips import Clip, Window
from bindery.engine.clips import EmbeddedClips
from bindery.engine.embedded import Embedded
from bindery.errors import BinderyError, EngineDown, QueueFull, UnreadableMedia, error_table
from bindery.kinds import parse_options
from bindery.media.source import Source
from service.fronts.line import Calls, Header, Line, check, refused
from service.fronts.packing import pack_items, pack_outcomes, packed_error, unpack_items, unpack_outcomes, unpacked_error
from service.inputs import Item
from service.remote import Remote

SHARED: Any = {"usage": {"tokens": 4.0}, "truncated": False, "timings_ms": {"decode": 0.125, "queue": 0.5, "infer": 2.25}}


def vector(seed: int) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(8).astype(np.float32)


def test_items_come_out_as_they_went_in(toy_bundle: Path) -> None:
    part = parse_options("audio", {"start": "0.1", "clip_seconds": "2.5"})
    items = [
        Item("0", "text", "a dog – ein Hund", parse_options("text", {}), "/inputs/0"),
        Item("1", "text", [1, 10**30], None, "/inputs/1"),
        Item("2", "audio", Source("a.wav", data=b"\0\1\2"), part, "/inputs/2"),
        Item("3", "audio", Source("b.wav", path=Path("/tmp/b")), part, "/inputs/3"),
        Item("4", "image", Source("c.png", data=b"\xff"), None, "/inputs/4"),
        Item("5", "image", Remote("https://example.org/a.png", "5"), None, "/inputs/5"),
    ]
    packed, blobs = pack_items(items)
    assert unpack_items(packed, b"".join(blobs), open_bundle(toy_bundle)) == items


def test_outcomes_come_out_to_the_bit() -> None:
    clips = (Clip(Window(0.0, 2.0), vector(2)), Clip(Window(2.0, 4.0), UnreadableMedia("cut off", pointer="/inputs/1")))
    outcomes: list[Embedded | BinderyError] = [
        Embedded(vector(0), **SHARED, batch=3),
        QueueFull("later", retry_after_ms=7),
        EmbeddedClips(vector(1), **SHARED, clips=clips, pool="mean"),
    ]
    rows, blobs = pack_outcomes(outcomes)
    first, error, cut = unpack_outcomes(rows, b"".join(blobs), 8)
    assert isinstance(first, Embedded)
    assert isinstance(error, QueueFull)
    assert isinstance(cut, EmbeddedClips)
    assert np.array_equal(first.vector, vector(0))
    assert np.array_equal(cut.vector, vector(1))
    assert (first.usage, first.timings_ms, first.batch) == (SHARED["usage"], SHARED["timings_ms"], 3)
    assert (error.detail, error.retry_after_ms) == ("later", 7)
    assert [clip.window for clip in cut.clips] == [Window(0.0, 2.0), Window(2.0, 4.0)]
    assert np.array_equal(cut.clips[0].vector, vector(2))  # type: ignore[arg-type]
    assert isinstance(cut.clips[1].vector, UnreadableMedia)


@pytest.mark.parametrize("kind", list(error_table()), ids=lambda kind: kind.code)
def test_an_error_keeps_its_class_and_words(kind: type[BinderyError]) -> None:
    error = kind("so it is", pointer="/inputs/3", retry_after_ms=5)
    again = unpacked_error(packed_error(error))
    assert type(again) is kind
    assert (again.detail, again.pointer, again.retry_after_ms) == ("so it is", "/inputs/3", 5)


async def test_frames_are_told_apart_however_they_arrive() -> None:
    sent: list[tuple[Header, bytes]] = [({"n": 1}, b"abc"), ({"n": 2, "text": "ü"}, b""), ({}, bytes(70_000))]
    written = bytearray()

    class Transport(asyncio.Transport):
        def writelines(self, pieces: object) -> None:
            written.extend(b"".join(pieces))  # type: ignore[arg-type]

    out = Line(lambda *_: None, lambda: None)
    out.connection_made(Transport())
    for header, body in sent:
        out.send(header, [body])
    for step in (1, 1000, len(written)):
        got: list[tuple[Header, bytes]] = []
        line = Line(lambda *frame, got=got: got.append(frame), lambda: None)
        for at in range(0, len(written), step):
            line.data_received(bytes(written[at : at + step]))
        assert got == sent


async def test_questions_end_with_the_process_that_should_answer(tmp_path: Path) -> None:
    def take(header: Header, _: bytes) -> None:
        if header["op"] == "refuse":
            end.send({"n": header["n"], **refused(QueueFull("later"))})
        elif header["op"] == "die":
            end.close()

    end = Line(take, lambda: None)
    server = await asyncio.get_running_loop().create_unix_server(lambda: end, str(tmp_path / "socket"))
    calls = await Calls.to(tmp_path / "socket")
    answer, _ = await calls.ask({"op": "refuse"})
    with pytest.raises(QueueFull):
        check(answer)
    waiting = asyncio.create_task(calls.ask({"op": "nothing"}))
    await asyncio.sleep(0)
    with pytest.raises(EngineDown):
        await calls.ask({"op": "die"})
    with pytest.raises(EngineDown):
        await waiting
    with pytest.raises(EngineDown):
        await calls.ask({"op": "nothing"})
    server.close()
    with pytest.raises(EngineDown):
        await Calls.to(tmp_path / "nowhere")
