from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import chain, pairwise

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
from tests import longmedia, scenery
from tests.toybundle import build_toy_bundle

LIMITS = Limits()


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Embedder:
    return load(build_toy_bundle(tmp_path_factory.mktemp("bundle")), threads=1)


def cut(
    length_s: float, limits: Limits = LIMITS, stream_s: float | None = None, cuts: Sequence[float] = (), **options: object
) -> list[tuple[float, float]]:
    parsed = parse_options("video", options)
    assert isinstance(parsed, PartOptions)
    extent = Extent(length_s, length_s if stream_s is None else stream_s)
    return [(window.start, window.end) for window in windows("a.mp4", extent, parsed, limits, cuts)]


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


def scenes(length_s: float, *cuts: float, **options: object) -> list[tuple[float, float]]:
    return cut(length_s, cuts=cuts, clip_by="scenes", **options)


def test_by_scenes_windows_go_from_cut_to_cut() -> None:
    assert scenes(20, 4.2, 9.0, 17.5) == [(0, 4.2), (4.2, 9), (9, 17.5), (17.5, 20)]
    assert scenes(8) == [(0, 8)]
    assert scenes(20, 4.2, 7.0, 17.5, start=1, end=10) == [(1, 4.2), (4.2, 7), (7, 10)]


def test_a_short_scene_is_joined_to_the_next_one_and_the_last_to_the_one_before() -> None:
    assert scenes(20, 5, 6.5, 10, 19) == [(0, 5), (5, 10), (10, 20)]
    assert scenes(20, 1) == [(0, 10), (10, 20)]
    assert scenes(20, 5, 6.5, 10, 19, clip_min_seconds=0) == [(0, 5), (5, 6.5), (6.5, 10), (10, 19), (19, 20)]
    assert scenes(20, 5, 6.5, 10, 19, clip_min_seconds=6) == [(0, 6.5), (6.5, 13.25), (13.25, 20)]
    assert scenes(4, 1.5, clip_seconds=1) == [(0, 0.75), (0.75, 1.5), (1.5, 2.333), (2.333, 3.166), (3.166, 4)]


def test_a_long_scene_is_divided_evenly() -> None:
    assert scenes(35, 10.1) == [(0, 5.05), (5.05, 10.1), (10.1, 18.4), (18.4, 26.7), (26.7, 35)]
    assert scenes(30, 10, clip_seconds=20) == [(0, 10), (10, 30)]


def test_a_window_begins_with_the_frame_of_the_cut_and_the_one_before_ends_ahead_of_it() -> None:
    assert scenes(10, 11 / 3) == [(0, 3.666), (3.666, 10)]


@given(length_s=st.floats(0.05, 500), cuts=st.lists(st.floats(-1, 600), max_size=50), least=st.floats(0, 4), seconds=st.floats(4, 60))
def test_scenes_cover_everything_once(length_s: float, cuts: list[float], least: float, seconds: float) -> None:
    found = scenes(length_s, *sorted(cuts), clip_min_seconds=least, clip_seconds=seconds)
    assert found[0][0] == 0
    assert found[-1][1] == pytest.approx(length_s, abs=2e-3)
    assert all(end == following for (_, end), (following, _) in pairwise(found))
    assert all(0 < end - start <= seconds + 2e-3 for start, end in found)
    assert len(found) == 1 or min(end - start for start, end in found) >= min(least, seconds / 2) - 3e-3


def test_scenes_are_a_bounded_number_of_clips() -> None:
    with pytest.raises(TooLong, match=r"clip_min_seconds"):
        cut(9000, clip_by="scenes", clip_seconds=4)
    with pytest.raises(TooLong, match=r"2500 clips"):
        cut(5000, cuts=[2.0 * n for n in range(2500)], clip_by="scenes")


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"clip_by": "scenes", "clip_stride": 5}, "clip_stride goes with"),
        ({"clip_by": "scenes", "clip_seconds": 5, "clip_min_seconds": 6}, "must not exceed"),
        ({"clip_by": "scenes", "clip_min_seconds": -1}, "clip_min_seconds"),
        ({"clip_by": "shots"}, "clip_by"),
        ({"clip_seconds": 5, "clip_min_seconds": 1}, "goes with clip_by=scenes"),
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


@pytest.mark.parametrize("sound_s", [30.0, 21.0])
def test_by_scenes_picture_and_sound_of_a_file_have_the_same_windows(model: Embedder, sound_s: float) -> None:
    data = longmedia.mp4(seconds_each=5, sound_s=sound_s)
    picture, sound = (model.embed_clips(modality, data, clip_by="scenes") for modality in ("video", "audio"))
    assert [(clip.window.start, clip.window.end) for clip in picture] == [(5.0 * n, 5.0 * n + 5) for n in range(6)]
    assert [clip.window for clip in sound] == [clip.window for clip in picture][: len(sound)]
    assert len(sound) == (6 if sound_s == 30 else 5)


def test_a_scene_has_the_vector_of_a_video_of_it_alone(model: Embedder) -> None:
    """So not one frame of its neighbours is in it."""
    lengths = (2.4, 3.32, 2.76)
    data = scenery.film(chain.from_iterable(scenery.scene(n, length) for n, length in enumerate(lengths)))
    clips = model.embed_clips("video", data, clip_by="scenes")
    assert len(clips) == 3
    for number, (clip, length) in enumerate(zip(clips, lengths, strict=True)):
        alone = model.embed("video", scenery.film(scenery.scene(number, length)))[0]
        assert np.dot(clip.vector, alone) > 0.999
        others = [np.dot(other.vector, alone) for other in clips if other is not clip]
        assert max(others) < 0.99


def test_a_sound_without_a_picture_is_one_scene(model: Embedder) -> None:
    clips = model.embed_clips("audio", longmedia.wav(), clip_by="scenes", clip_seconds=16)
    assert [(clip.window.start, clip.window.end) for clip in clips] == [(0, 15), (15, 30), (30, 45), (45, 60)]


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
