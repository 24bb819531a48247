from __future__ import annotations

import math
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bindery.clips import SHORTEST_S, Window, mean_vector, windows
from bindery.decoded import Extent
from bindery.embedder import Embedder, load
from bindery.errors import BinderyError, InvalidParameter, TooLong, UnreadableMedia
from bindery.kinds import parse_options
from bindery.limits import Limits
from bindery.media.source import Source
from bindery.spec import PartOptions
from tests import longmedia
from tests.toybundle import build_toy_bundle

LIMITS = Limits()


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Embedder:
    return load(build_toy_bundle(tmp_path_factory.mktemp("bundle")), threads=1)


def cut(length_s: float, limits: Limits = LIMITS, stream_s: float | None = None, **options: object) -> list[tuple[float, float]]:
    parsed = parse_options("video", options)
    assert isinstance(parsed, PartOptions)
    extent = Extent(length_s, length_s if stream_s is None else stream_s)
    return [(window.start, window.end) for window in windows("a.mp4", extent, parsed, limits)]


def test_windows_start_at_every_stride_and_the_last_one_ends_with_the_medium() -> None:
    assert cut(30, clip_seconds=10) == [(0, 10), (8, 18), (16, 26), (24, 30)]
    assert cut(26, clip_seconds=10) == [(0, 10), (8, 18), (16, 26)]
    assert cut(20, clip_seconds=5, clip_stride=5) == [(0, 5), (5, 10), (10, 15), (15, 20)]
    assert cut(3.2, clip_seconds=10) == [(0, 3.2)]
    assert cut(0.4, clip_seconds=10) == [(0, 0.4)]


def test_a_last_window_shorter_than_two_seconds_is_joined_to_the_one_before() -> None:
    assert cut(21.9, clip_seconds=10, clip_stride=10) == [(0, 10), (10, 21.9)]
    assert cut(22, clip_seconds=10, clip_stride=10) == [(0, 10), (10, 20), (20, 22)]
    assert cut(5, clip_seconds=1, clip_stride=1) == [(0, 1), (1, 2), (2, 3), (3, 4), (4, 5)]


def test_a_part_has_a_grid_of_its_own() -> None:
    assert cut(100, clip_seconds=10, clip_stride=10, start=5, end=27) == [(5, 15), (15, 25), (25, 27)]
    assert cut(20, clip_seconds=10, clip_stride=10, start=5, end=99) == [(5, 15), (15, 20)]
    with pytest.raises(InvalidParameter, match="start is 50 s"):
        cut(20, clip_seconds=10, start=50)


def test_windows_after_the_streams_end_are_left_out_and_the_others_stay_on_the_files_grid() -> None:
    assert cut(30, stream_s=15, clip_seconds=10) == [(0, 10), (8, 18)]


@given(length_s=st.floats(0.05, 5000), seconds=st.floats(0.5, 60), share=st.floats(0.2, 1))
def test_windows_cover_everything_without_a_gap(length_s: float, seconds: float, share: float) -> None:
    found = cut(length_s, Limits(clips=100_000), clip_seconds=seconds, clip_stride=seconds * share)
    assert found[0][0] == 0
    assert found[-1][1] == pytest.approx(length_s, abs=2e-3)
    for (start, end), (following, _) in pairwise(found):
        assert start < following <= end + 2e-3
    assert all(end - start <= seconds + SHORTEST_S + 2e-3 for start, end in found)
    shortest = min(SHORTEST_S, seconds)
    assert len(found) == 1 or found[-1][1] - found[-1][0] >= shortest - 2e-3


def test_three_hours_are_a_bounded_number_of_clips() -> None:
    found = cut(3 * 3600, clip_seconds=10)
    assert len(found) == 1350
    assert found[-1] == (1349 * 8, 10_800)
    with pytest.raises(TooLong, match=r"10799 clips .* at most 2000 .limit clips"):
        cut(3 * 3600, clip_seconds=2, clip_stride=1)
    with pytest.raises(InvalidParameter, match=r"at most 598 .*media_seconds"):
        cut(3 * 3600, clip_seconds=599)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"clip_stride": 8}, "go with clip_seconds"),
        ({"pool": "mean"}, "go with clip_seconds"),
        ({"clip_seconds": 5, "clip_stride": 6}, "must not exceed"),
        ({"clip_seconds": 0}, "clip_seconds"),
        ({"clip_seconds": math.inf}, "clip_seconds"),
        ({"clip_seconds": 5, "pool": "max"}, "pool"),
    ],
)
def test_options_that_make_no_grid_are_told(options: dict[str, object], words: str) -> None:
    with pytest.raises(InvalidParameter, match=words):
        parse_options("audio", options)


def test_pictures_have_no_clips() -> None:
    with pytest.raises(InvalidParameter, match="clip_seconds is no option of image"):
        parse_options("image", {"clip_seconds": 10})


@pytest.mark.parametrize(("modality", "data"), [("audio", longmedia.wav()), ("video", longmedia.mp4())])
def test_the_right_moment_is_found(model: Embedder, modality: str, data: bytes) -> None:
    clips = model.embed_clips(modality, data, clip_seconds=10, clip_stride=10)
    assert [(clip.window.start, clip.window.end) for clip in clips] == [(10.0 * n, 10.0 * n + 10) for n in range(6)]
    vectors = np.stack([clip.vector for clip in clips])
    for wanted in range(6):
        if modality == "audio":
            query = model.embed("audio", longmedia.wav(longmedia.TONES_HZ[wanted : wanted + 1], 10))[0]
        else:
            query = model.embed("video", longmedia.mp4(longmedia.COLORS[wanted : wanted + 1], 2))[0]
        assert int(np.argmax(vectors @ query)) == wanted


def test_a_clip_has_the_vector_of_its_part(model: Embedder) -> None:
    data = longmedia.mp4()
    clips = model.embed_clips("video", data, clip_seconds=12, clip_stride=7.5)
    for clip in clips:
        part = model.embed("video", data, start=clip.window.start, end=clip.window.end)[0]
        assert np.array_equal(clip.vector, part)
    pooled = model.embed("video", data, clip_seconds=12, clip_stride=7.5, pool="mean")[0]
    assert np.allclose(pooled, mean_vector(clips), atol=1e-6)
    assert np.linalg.norm(pooled) == pytest.approx(1, abs=1e-6)
    with pytest.raises(InvalidParameter, match="embed_clips"):
        model.embed("video", data, clip_seconds=12)


def test_picture_and_sound_of_a_file_have_the_same_windows(model: Embedder) -> None:
    data = longmedia.mp4(seconds_each=5, sound_s=21.0)
    picture, sound = (model.embed_clips(modality, data, clip_seconds=4) for modality in ("video", "audio"))
    windows_of_picture = [clip.window for clip in picture]
    assert [clip.window for clip in sound] == windows_of_picture[: len(sound)]
    assert windows_of_picture[-1].end == 30
    assert sound[-1].window == Window(19.2, 23.2)
    assert not any(isinstance(clip.vector, BinderyError) for clip in (*picture, *sound))


def test_a_damaged_stretch_fails_its_own_clips_only(model: Embedder) -> None:
    data = longmedia.mp4(sound_s=60.0)
    whole, hurt = (model.embed_clips("audio", one, clip_seconds=5, clip_stride=5) for one in (data, longmedia.damaged(data, 0.5)))
    failed = [clip.window for clip in hurt if isinstance(clip.vector, UnreadableMedia)]
    assert 0 < len(failed) < 4
    for good, clip in zip(whole, hurt, strict=True):
        assert clip.window in failed or np.array_equal(good.vector, clip.vector)


def test_when_no_clip_can_be_read_the_medium_fails(model: Embedder) -> None:
    with pytest.raises(BinderyError):
        model.embed_clips("audio", Source.of(b"RIFF....WAVEjunk", name="junk.wav"))


def test_one_item_takes_no_clips(model: Embedder) -> None:
    with pytest.raises(InvalidParameter, match="here it must be one"):
        model.prepare("audio", longmedia.wav(seconds_each=1), parse_options("audio", {"clip_seconds": 10}))
