from __future__ import annotations

import asyncio
import resource
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import numpy as np
import pytest

import bindery
from bindery.bundle import Bundle, open_bundle
from bindery.clips import mean_vector
from bindery.engine.clips import embed_clips
from bindery.engine.engine import Engine, EnginePolicy
from bindery.errors import DeadlineExceeded, EngineDown, TooLong, UnreadableMedia
from bindery.limits import Limits
from bindery.media.source import Source
from bindery.spec import PartOptions
from tests import longmedia, scenery
from tests.media import clips as media
from tests.toybundle import build_toy_bundle

GRID = PartOptions(clip_seconds=5, clip_stride=4)
TONES = Source.of(longmedia.wav(), name="tones.wav")


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return open_bundle(build_toy_bundle(tmp_path_factory.mktemp("bundles") / "toy"))


@asynccontextmanager
async def started(bundle: Bundle, limits: Limits | None = None) -> AsyncIterator[Engine]:
    engine = Engine(bundle, limits or Limits(), EnginePolicy(threads=1, decode_workers=2))
    await engine.start()
    try:
        yield engine
    finally:
        await engine.stop(1)


async def test_the_engine_gives_the_notebooks_clips(bundle: Bundle) -> None:
    model = bindery.load(bundle.root, threads=1)
    async with started(bundle) as engine:
        for modality, source in {"audio": TONES, "video": Source.of(longmedia.mp4())}.items():
            found = await embed_clips(engine, modality, source, GRID)
            wanted = model.embed_clips(modality, source, clip_seconds=5, clip_stride=4)
            assert [clip.window for clip in found.clips] == [clip.window for clip in wanted]
            for one, other in zip(found.clips, wanted, strict=True):
                assert np.allclose(one.vector, other.vector, atol=1e-5)
            assert np.allclose(found.vector, mean_vector(wanted), atol=1e-5)
            assert found.usage["bytes"] == source.size_bytes


async def test_by_scenes_too_and_in_whatever_stretches(bundle: Bundle) -> None:
    pictures = (picture for n in range(4) for picture in scenery.scene(n, 22, rate=5))
    source = Source.of(scenery.film(pictures, rate=5, sound_s=88.0), name="scenes.mp4")  # looked at in two stretches
    model = bindery.load(bundle.root, threads=1)
    async with started(bundle) as engine:
        for modality in ("video", "audio"):
            found = await embed_clips(engine, modality, source, PartOptions(clip_by="scenes", clip_seconds=30))
            wanted = model.embed_clips(modality, source, clip_by="scenes", clip_seconds=30)
            assert [(clip.window.start, clip.window.end) for clip in found.clips] == [(22.0 * n, 22.0 * n + 22) for n in range(4)]
            assert [clip.window for clip in found.clips] == [clip.window for clip in wanted]
            for one, other in zip(found.clips, wanted, strict=True):
                assert np.allclose(one.vector, other.vector, atol=1e-5)
        with pytest.raises(DeadlineExceeded):
            await embed_clips(engine, "video", source, PartOptions(clip_by="scenes"), deadline=time.monotonic() + 0.001)
        assert engine.queued == 0


async def test_a_failing_window_keeps_its_error_to_itself(bundle: Bundle) -> None:
    async with started(bundle) as engine:
        hurt = Source.of(longmedia.damaged(longmedia.mp4(sound_s=60.0), 0.5))
        found = await embed_clips(engine, "audio", hurt, GRID)
        failed = [clip for clip in found.clips if isinstance(clip.vector, UnreadableMedia)]
        assert 0 < len(failed) < 5
        assert len(found.clips) == 15


async def test_what_the_server_is_to_blame_for_fails_the_medium(bundle: Bundle) -> None:
    async with started(bundle) as engine:
        with pytest.raises(DeadlineExceeded):
            await embed_clips(engine, "audio", TONES, PartOptions(clip_seconds=0.5, clip_stride=0.1), deadline=time.monotonic() + 0.3)
        assert engine.queued == 0
        with pytest.raises(TooLong):
            await embed_clips(engine, "audio", TONES, PartOptions(clip_seconds=0.02))
    with pytest.raises(EngineDown):
        await embed_clips(engine, "audio", TONES, GRID)


async def test_windows_wait_for_room_in_a_full_queue(bundle: Bundle) -> None:
    async with started(bundle, Limits(queue_items=2)) as engine:
        several = await asyncio.gather(*(embed_clips(engine, "audio", TONES, GRID) for _ in range(3)))
        assert [len(one.clips) for one in several] == [15, 15, 15]
        assert not any(isinstance(clip.vector, Exception) for one in several for clip in one.clips)


@pytest.mark.slow
async def test_three_hours_take_no_more_memory_than_a_minute(bundle: Bundle, tmp_path: Path) -> None:
    sound = tmp_path / "long.wav"
    body = 3 * 3600 * 8000 * 2
    sound.write_bytes(media.wav(b"", rate=8000, claimed=body))
    with sound.open("r+b") as file:
        file.truncate(44 + body)  # silence, and no disk is used for it
    video = tmp_path / "long.mp4"
    video.write_bytes(longmedia.mp4(((200, 30, 30), (30, 30, 200)), 5400, codec="mpeg4", rate=2, key_every=24))
    options = PartOptions(clip_seconds=10, clip_stride=8)
    by_scenes = PartOptions(clip_seconds=10, clip_by="scenes")
    async with started(bundle, Limits(file_bytes=1 << 30)) as engine:
        await embed_clips(engine, "audio", TONES, GRID)
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        for modality, path in {"audio": sound, "video": video}.items():
            found = await embed_clips(engine, modality, Source.of(path), options)
            assert len(found.clips) == 1350
            assert not any(isinstance(clip.vector, Exception) for clip in found.clips)
            assert found.clips[-1].window.end == pytest.approx(3 * 3600, abs=1)
        found = await embed_clips(engine, "video", Source.of(video), by_scenes)
        assert [clip.window.start for clip in found.clips[539:541]] == [5390.0, 5400.0]
        assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 100 * 1024  # KiB
