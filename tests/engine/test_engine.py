from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import numpy as np
import pytest

import bindery
from bindery.bundle import Bundle, open_bundle
from bindery.engine.embedded import Embedded
from bindery.engine.engine import Engine, EnginePolicy
from bindery.engine.events import Admitted, BatchRun, Event, Failed, Finished, Refused
from bindery.errors import (
    BundleDamaged,
    DeadlineExceeded,
    Draining,
    EngineDown,
    QueueFull,
    Starting,
    UnknownModality,
    UnreadableMedia,
    UnsupportedMedia,
)
from bindery.limits import Limits
from bindery.media.source import Source
from bindery.spec import DepthOptions
from tests.toybundle import build_toy_bundle

EXAMPLES = Path(__file__).parents[2] / "examples"
ELEPHANT = Source.of(EXAMPLES / "elephant.jpg")
POLICY = EnginePolicy(threads=1, decode_workers=2, cache_bytes=0)  # what is tested here happens to every item that is computed


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return open_bundle(build_toy_bundle(tmp_path_factory.mktemp("bundles") / "toy"))


@asynccontextmanager
async def started(bundle: Bundle, limits: Limits | None = None) -> AsyncIterator[Engine]:
    engine = Engine(bundle, limits or Limits(), POLICY)
    await engine.start()
    try:
        yield engine
    finally:
        await engine.stop(1)


async def test_the_engine_gives_the_notebooks_vectors(bundle: Bundle) -> None:
    model = bindery.load(bundle.root)
    async with started(bundle) as engine:
        for modality, name in {"image": "elephant.jpg", "video": "kitchen.mp4", "audio": "dog.wav", "thermal": "cars-thermal.jpg"}.items():
            embedded = await engine.embed(modality, Source.of(EXAMPLES / name))
            assert np.allclose(embedded.vector, model.embed(modality, EXAMPLES / name)[0], atol=1e-5)
            assert embedded.timings_ms.keys() == {"decode", "queue", "infer"}
        text = await engine.embed("text", "a dog barking")
        assert np.allclose(text.vector, model.embed("text", "a dog barking")[0], atol=1e-5)


async def test_options_reach_the_decoder(bundle: Bundle) -> None:
    depth = Source.of(EXAMPLES / "bathroom-depth.png")
    async with started(bundle) as engine:
        stated = await engine.embed("depth", depth, DepthOptions(depth_unit="mm"))
        default = await engine.embed("depth", depth)
        other = await engine.embed("depth", depth, DepthOptions(depth_scale=0.0001))
    assert np.array_equal(stated.vector, default.vector)
    assert not np.allclose(stated.vector, other.vector, atol=1e-3)


async def test_one_bad_item_fails_alone_among_many(bundle: Bundle) -> None:
    junk = Source.of((EXAMPLES / "elephant.jpg").read_bytes()[:300], name="half.jpg")
    async with started(bundle) as engine:
        results = await asyncio.gather(*(engine.embed("image", s) for s in [ELEPHANT, junk, ELEPHANT]), return_exceptions=True)
    assert isinstance(results[1], UnreadableMedia)
    assert isinstance(results[0], Embedded)
    assert isinstance(results[2], Embedded)


async def test_many_callers_share_batches(bundle: Bundle) -> None:
    events: list[Event] = []
    async with started(bundle) as engine:
        engine.listen(events.append)
        await asyncio.gather(*(engine.embed("text", f"text {i}") for i in range(64)))
    batches = [event.items for event in events if isinstance(event, BatchRun)]
    assert sum(batches) == 64
    assert max(batches) > 1
    assert sum(isinstance(event, Admitted) for event in events) == sum(isinstance(event, Finished) for event in events) == 64


async def test_what_can_never_work_is_refused_at_once(bundle: Bundle) -> None:
    events: list[Event] = []
    async with started(bundle) as engine:
        engine.listen(events.append)
        with pytest.raises(UnknownModality):
            await engine.embed("smell", ELEPHANT)
        with pytest.raises(UnsupportedMedia, match="not a media file"):
            await engine.embed("text", ELEPHANT)
        with pytest.raises(UnsupportedMedia, match="not text"):
            await engine.embed("image", "a dog")
    assert [event.code for event in events if isinstance(event, Refused)] == ["unknown_modality", "unsupported_media", "unsupported_media"]


async def test_a_full_queue_refuses_and_recovers(bundle: Bundle) -> None:
    async with started(bundle, Limits(queue_items=3)) as engine:
        results = await asyncio.gather(*(engine.embed("image", ELEPHANT) for _ in range(8)), return_exceptions=True)
        refused = [r for r in results if isinstance(r, QueueFull)]
        assert len(refused) == 5
        assert refused[0].retry_after_ms
        assert (await engine.embed("image", ELEPHANT)).vector.shape == (bundle.manifest.dimension,)
        assert engine.queued == 0


async def test_a_deadline_ends_the_wait_and_names_the_stage(bundle: Bundle) -> None:
    events: list[Event] = []
    async with started(bundle) as engine:
        engine.listen(events.append)
        with pytest.raises(DeadlineExceeded, match="stage decode"):
            await engine.embed("image", ELEPHANT, deadline=time.monotonic() - 1)
        assert engine.queued == 0
    assert [event.code for event in events if isinstance(event, Failed)] == ["deadline_exceeded"]


async def test_before_the_start_while_draining_and_after_the_end_it_says_so(bundle: Bundle) -> None:
    engine = Engine(bundle, Limits(), POLICY)
    with pytest.raises(Starting):
        await engine.embed("text", "a")
    await engine.start()
    accepted = asyncio.create_task(engine.embed("image", ELEPHANT))
    await asyncio.sleep(0)
    stopping = asyncio.create_task(engine.stop(10))
    await asyncio.sleep(0)
    with pytest.raises(Draining):
        await engine.embed("text", "a")
    await stopping
    assert (await accepted).vector.shape == (bundle.manifest.dimension,)  # what was accepted is finished
    with pytest.raises(EngineDown):
        await engine.embed("text", "a")


async def test_a_graph_that_is_no_graph_fails_the_start_and_names_the_file(tmp_path: Path) -> None:
    bundle = open_bundle(build_toy_bundle(tmp_path / "toy"))
    (bundle.root / "image/model.onnx").write_bytes(b"not a graph")
    engine = Engine(bundle, Limits(), POLICY)
    with pytest.raises(BundleDamaged, match=r"image/model\.onnx"):
        await engine.start()
    assert engine.state == "failed"
    await engine.stop(0)


async def test_repeated_embeddings_are_equal_to_the_last_bit(bundle: Bundle) -> None:
    async with started(bundle) as engine:
        results = await asyncio.gather(*(engine.embed("video", Source.of(EXAMPLES / "kitchen.mp4")) for _ in range(24)))
        alone = await engine.embed("video", Source.of(EXAMPLES / "kitchen.mp4"))
    assert max(np.abs(r.vector - alone.vector).max() for r in results) <= 1e-5
