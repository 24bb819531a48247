from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bindery.errors import InvalidParameter, NoVideoStream, TooLong, TooManyPixels, UnreadableMedia
from bindery.limits import Limits
from bindery.media import timeline, video
from bindery.media.source import Source
from bindery.media.video import decode_frames, frame_indices
from tests.media import clips

LIMITS = Limits()


@given(st.integers(1, 100_000), st.integers(2, 64))
def test_frame_indices_follow_the_rule(count: int, wanted: int) -> None:
    indices = frame_indices(count, wanted)
    assert list(indices) == [int(np.floor(i * (count - 1) / (wanted - 1) + 1e-9)) for i in range(wanted)]
    assert indices[0] == 0
    assert indices[-1] == count - 1


def test_one_wanted_frame_is_the_first() -> None:
    assert frame_indices(30, 1) == (0,)


@pytest.mark.parametrize(
    ("codec", "container"),
    [
        ("libx264", "mp4"),
        ("libx264", "mov"),
        ("libx264", "matroska"),
        ("libx265", "mp4"),
        ("libvpx-vp9", "webm"),
        ("libvpx", "webm"),
        ("libsvtav1", "mp4"),
        ("mpeg4", "avi"),
        ("libx264", "avi"),
    ],
)
def test_frames_are_those_of_plain_decoding(codec: str, container: str) -> None:
    clip = clips.video(codec, container, frames=20)
    truth = clips.every_frame(clip)
    frames = decode_frames(Source.of(clip), LIMITS, n_frames=8)
    assert frames.indices == frame_indices(len(truth), 8)
    for row, index in enumerate(frames.indices):
        assert np.array_equal(frames.pixels[row], truth[index])


@pytest.mark.parametrize(("codec", "container"), [("libx264", "mp4"), ("libx265", "mp4"), ("libvpx-vp9", "webm"), ("mpeg4", "avi")])
def test_seeking_changes_no_pixel(codec: str, container: str) -> None:
    clip = clips.video(codec, container, frames=150, key_every=10)
    truth = clips.every_frame(clip)
    frames = decode_frames(Source.of(clip), LIMITS, n_frames=5)
    assert frames.indices == (0, 37, 74, 111, 149)
    for row, index in enumerate(frames.indices):
        assert np.array_equal(frames.pixels[row], truth[index])


@pytest.mark.parametrize(("count", "expected"), [(1, (0,) * 8), (5, (0, 0, 1, 1, 2, 2, 3, 4)), (8, tuple(range(8)))])
def test_short_videos_repeat_frames(count: int, expected: tuple[int, ...]) -> None:
    frames = decode_frames(Source.of(clips.video(frames=count)), LIMITS, n_frames=8)
    assert frames.indices == expected
    assert frames.pixels.shape == (8, 64, 96, 3)


def test_a_variable_frame_rate_is_ignored_by_the_rule_and_kept_in_the_times() -> None:
    times_ms = [0, 10, 20, 30, 40, 1000, 2000, 3000, 4000]
    frames = decode_frames(Source.of(clips.video(frames=9, times_ms=times_ms)), LIMITS, n_frames=3)
    assert frames.indices == (0, 4, 8)
    assert frames.times_s == pytest.approx((0.0, 0.04, 4.0), abs=0.002)


def test_a_file_without_a_frame_count_is_counted() -> None:
    clip = clips.video("libvpx-vp9", "webm", frames=17)
    assert decode_frames(Source.of(clip), LIMITS, n_frames=8).indices[-1] == 16


@pytest.mark.parametrize("quarter_turns", [0, 1, 2, 3])
def test_rotation_is_reported_and_not_applied(quarter_turns: int) -> None:
    clip = clips.video(frames=3)
    frames = decode_frames(Source.of(clips.rotated(clip, quarter_turns)), LIMITS, n_frames=2)
    assert frames.rotation == 90 * quarter_turns
    assert np.array_equal(frames.pixels, decode_frames(Source.of(clip), LIMITS, n_frames=2).pixels)


@pytest.mark.parametrize("size", [(72, 130), (64, 48), (98, 54), (2, 2)])
def test_portrait_and_small_sizes(size: tuple[int, int]) -> None:
    frames = decode_frames(Source.of(clips.video("mpeg4", frames=3, size=size)), LIMITS, n_frames=2)
    assert frames.pixels.shape == (2, size[1], size[0], 3)


def test_ten_bits_become_eight() -> None:
    assert (
        decode_frames(Source.of(clips.video("libx265", frames=3, pixel_format="yuv420p10le")), LIMITS, n_frames=2).pixels.dtype == np.uint8
    )


def test_a_part_counts_its_own_frames() -> None:
    clip = clips.video(frames=60)  # 2 s
    truth = clips.every_frame(clip)
    frames = decode_frames(Source.of(clip), LIMITS, n_frames=3, start=0.5, end=1.5)
    assert frames.indices == (0, 14, 29)
    assert frames.times_s == pytest.approx((15 / 30, 29 / 30, 44 / 30))
    assert np.array_equal(frames.pixels[1], truth[29])


def test_a_part_between_two_frames_shows_the_one_on_screen() -> None:
    clip = clips.video(frames=3, times_ms=[0, 1000, 2000])
    frames = decode_frames(Source.of(clip), LIMITS, n_frames=2, start=1.2, end=1.4)
    assert frames.times_s == (1.0, 1.0)


def test_a_start_beyond_the_end_is_an_invalid_parameter() -> None:
    with pytest.raises(InvalidParameter, match="start is 50 s") as caught:
        decode_frames(Source.of(clips.video(frames=10)), LIMITS, n_frames=8, start=50)
    assert caught.value.pointer == "/options/start"


def test_packets_that_lie_are_counted_by_decoding(monkeypatch: pytest.MonkeyPatch) -> None:
    clip = clips.video("libx264", frames=20)
    expected = decode_frames(Source.of(clip), LIMITS, n_frames=8)
    monkeypatch.setattr(timeline, "_PACKETS_LIE", frozenset({"h264"}))
    counted = decode_frames(Source.of(clip), LIMITS, n_frames=8)
    assert counted.indices == expected.indices
    assert counted.times_s == pytest.approx(expected.times_s)
    assert np.array_equal(counted.pixels, expected.pixels)


def test_length_frames_and_size_have_limits() -> None:
    source = Source.of(clips.video(frames=60))
    with pytest.raises(TooLong, match="media_seconds"):
        decode_frames(source, Limits(media_seconds=1.0), n_frames=8)
    with pytest.raises(TooLong, match="video_frames"):
        decode_frames(source, Limits(video_frames=59), n_frames=8)
    with pytest.raises(TooManyPixels, match="96 x 64"):
        decode_frames(source, Limits(pixels=6143), n_frames=8)
    assert decode_frames(source, Limits(media_seconds=1.0), n_frames=8, start=1.0).indices[-1] == 29


def test_sound_alone_is_no_video() -> None:
    with pytest.raises(NoVideoStream):
        decode_frames(Source.of(clips.sound("aac", "mp4", clips.tone(44_100, 0.3), 44_100)), LIMITS, n_frames=8)


@pytest.mark.parametrize("share", [0.1, 0.5, 0.9])
@pytest.mark.parametrize(("codec", "container"), [("libx264", "mp4"), ("libx264", "matroska"), ("libvpx-vp9", "webm"), ("mpeg4", "avi")])
def test_a_cut_off_video_is_unreadable_media(codec: str, container: str, share: float) -> None:
    clip = clips.video(codec, container, frames=40)
    with pytest.raises(UnreadableMedia, match=r"^cut"):
        decode_frames(Source.of(clip[: int(len(clip) * share)], "cut"), LIMITS, n_frames=8)


def test_a_path_and_its_bytes_give_the_same_frames(tmp_path: Path) -> None:
    path = tmp_path / "a.mp4"
    path.write_bytes(clips.video(frames=12))
    by_path, by_bytes = (decode_frames(Source.of(value), LIMITS, n_frames=8) for value in (path, path.read_bytes()))
    assert np.array_equal(by_path.pixels, by_bytes.pixels)
    assert by_path.times_s == by_bytes.times_s


@pytest.mark.parametrize(
    ("codec", "container"), [("libx264", "mp4"), ("libx264", "matroska"), ("libx265", "mp4"), ("libvpx-vp9", "webm"), ("libx264", "mov")]
)
@pytest.mark.parametrize(("start", "end"), [(0.0, 1.0), (2.03, 3.5), (1.0, 1.01), (4.2, None), (None, 0.5), (4.99, 9.0)])
def test_a_part_read_by_seeking_is_the_part_of_the_whole(
    codec: str, container: str, start: float | None, end: float | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = Source.of(clips.video(codec, container, frames=150, key_every=20))
    sought = decode_frames(source, LIMITS, n_frames=6, start=start, end=end)
    monkeypatch.setattr(video, "_stretch", lambda *_: None)
    whole = decode_frames(source, LIMITS, n_frames=6, start=start, end=end)
    assert sought.indices == whole.indices
    assert sought.times_s == pytest.approx(whole.times_s)
    assert np.array_equal(sought.pixels, whole.pixels)


def test_a_part_of_a_long_file_reads_only_around_it() -> None:
    source = Source.of(clips.video(frames=900, key_every=30))
    assert decode_frames(source, Limits(video_frames=100), n_frames=4, start=20, end=22).indices == (0, 19, 39, 59)
    with pytest.raises(TooLong, match="video_frames"):
        decode_frames(source, Limits(video_frames=100), n_frames=4)
