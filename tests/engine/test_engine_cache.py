"""The cache inside the real engine: the same bytes give the same vector, to the last bit, without a second computation."""

from __future__ import annotations

import asyncio
from pathlib import Path

import numpy as np
import pytest

from bindery.bundle import Bundle, open_bundle
from bindery.engine.engine import Engine, EnginePolicy
from bindery.engine.events import BatchRun, CacheLookup, Event, Failed, Finished
from bindery.errors import UnreadableMedia
from bindery.limits import Limits
from bindery.media.source import Source
from tests.toybundle import build_toy_bundle

EXAMPLES = Path(__file__).parents[2] / "examples"
INPUTS = {"image": "elephant.jpg", "video": "kitchen.mp4", "audio": "dog.wav", "depth": "bathroom-depth.png", "thermal": "cars-thermal.jpg"}


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return open_bundle(build_toy_bundle(tmp_path_factory.mktemp("bundles") / "toy"))


async def test_vectors_from_the_cache_are_the_computed_ones_to_the_last_bit(bundle: Bundle) -> None:
    events: list[Event] = []
    engine = Engine(bundle, Limits(), EnginePolicy(threads=1))
    await engine.start()
    engine.listen(events.append)
    asked = {"text": "a dog"} | {modality: Source.of(EXAMPLES / name) for modality, name in INPUTS.items()}
    first = {modality: await engine.embed(modality, value) for modality, value in asked.items()}
    again = {modality: await engine.embed(modality, value) for modality, value in asked.items()}
    renamed = await engine.embed("image", Source.of((EXAMPLES / "elephant.jpg").read_bytes(), name="other.jpg"))
    await engine.stop(1)
    for modality, one in first.items():
        assert np.array_equal(one.vector, again[modality].vector)
        assert (one.usage, one.truncated) == (again[modality].usage, again[modality].truncated)
        assert set(again[modality].timings_ms.values()) == {0.0}
    assert np.array_equal(renamed.vector, first["image"].vector)
    assert [event.found for event in events if isinstance(event, CacheLookup)] == ["miss"] * 6 + ["hit"] * 7
    assert sum(isinstance(event, Finished) for event in events) == 13
    assert sum(event.items for event in events if isinstance(event, BatchRun)) == 6


async def test_equal_items_side_by_side_are_decoded_and_run_once(bundle: Bundle) -> None:
    events: list[Event] = []
    engine = Engine(bundle, Limits(), EnginePolicy(threads=1))
    await engine.start()
    engine.listen(events.append)
    clip = (EXAMPLES / "kitchen.mp4").read_bytes()
    junk = clip[:2000]
    results = await asyncio.gather(
        *(engine.embed("video", Source.of(clip, name=f"{n}.mp4")) for n in range(6)),
        *(engine.embed("video", Source.of(junk, name=f"junk{n}.mp4")) for n in range(3)),
        return_exceptions=True,
    )
    await engine.stop(1)
    assert len({one.vector.tobytes() for one in results[:6] if not isinstance(one, BaseException)}) == 1
    assert sum(event.items for event in events if isinstance(event, BatchRun)) == 1
    for number, error in enumerate(results[6:]):
        assert isinstance(error, UnreadableMedia)
        assert f"junk{number}.mp4" in error.detail  # everyone reads about a file of their own
    assert sum(isinstance(event, Failed) for event in events) == 3
