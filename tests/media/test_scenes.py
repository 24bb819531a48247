"""Cuts: found where they are, to the frame, and nowhere else, however the video is coded and in whatever stretches it is looked at."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import chain, islice
from typing import Any

import numpy as np
import pytest

from bindery.errors import EmptyMedia
from bindery.limits import Limits
from bindery.media import scenes
from bindery.media.scenes import find_cuts, stretch_s
from bindery.media.source import Source
from tests.media import clips
from tests.scenery import Picture, dissolve, film, plain, scene

LIMITS = Limits()
THREE = (2.0, 5.2)  # where the scenes of `three` end


def three() -> Iterator[Picture]:
    return chain(scene(1, 2), scene(2, 3.2), scene(3, 2.4))


def cuts_of(data: bytes, end: float = 1e6) -> list[float]:
    """Of the whole video, in as many stretches as it takes."""
    source, at, cuts = Source.of(data, name="film"), 0.0, []
    while at < end:
        found = find_cuts(source, LIMITS, at, end)
        assert found.until_s > at
        cuts += found.times_s
        at = found.until_s
        if at > 1000:
            break
    return [round(cut, 3) for cut in cuts]


@pytest.mark.parametrize(
    ("codec", "container"),
    [("libx264", "mp4"), ("libx265", "mp4"), ("libvpx-vp9", "webm"), ("libvpx", "webm"), ("libx264", "matroska"), ("mpeg4", "avi")],
)
def test_hard_cuts_are_found_to_the_frame(codec: str, container: str) -> None:
    assert cuts_of(film(three(), codec=codec, container=container)) == pytest.approx(THREE, abs=0.002)


@pytest.mark.parametrize("rate", [5, 10, 60])
def test_at_any_rate(rate: int) -> None:
    pictures = chain(scene(1, 2, rate=rate), scene(2, 3, rate=rate), scene(3, 2, rate=rate))
    assert cuts_of(film(pictures, rate=rate)) == [2.0, 5.0]


def test_scenes_of_one_brightness_differ_by_colour() -> None:
    assert cuts_of(film(chain(plain((200, 60, 60), 2), plain((40, 130, 60), 2)))) == [2.0]


@pytest.mark.parametrize(
    "pictures",
    [
        pytest.param(lambda: scene(1, 6), id="one scene"),
        pytest.param(lambda: scene(1, 4, step=8), id="a fast pan"),
        pytest.param(lambda: dissolve(scene(1, 2), scene(2, 2)), id="a slow dissolve"),
        pytest.param(lambda: chain(dissolve(scene(1, 1), plain((0, 0, 0), 1)), plain((0, 0, 0), 1)), id="a fade to black"),
        pytest.param(lambda: chain(scene(1, 2), plain((255, 255, 255), 0.04), islice(scene(1, 4), 51, None)), id="a flash of one frame"),
        pytest.param(lambda: chain(scene(1, 2), plain((255, 255, 255), 0.12), islice(scene(1, 4), 53, None)), id="a flash of three"),
    ],
)
def test_what_is_no_cut(pictures: object) -> None:
    assert callable(pictures)
    assert cuts_of(film(pictures())) == []


def test_a_pan_that_repeats_frames_is_no_cut_as_animation_does() -> None:
    drawn = (picture for picture in scene(1, 2, step=4) for _ in range(2))
    assert cuts_of(film(drawn)) == []


def test_a_flash_at_a_cut_hides_it_not() -> None:
    cuts = cuts_of(film(chain(scene(1, 2), plain((255, 255, 255), 0.04), scene(2, 2))))
    assert cuts
    assert set(cuts) <= {2.0, 2.04}


@pytest.mark.parametrize(("codec", "container"), [("libx264", "mp4"), ("libvpx-vp9", "webm")])
@pytest.mark.parametrize("key_every", [10, 250])
def test_stretches_find_what_one_pass_finds(codec: str, container: str, key_every: int, monkeypatch: pytest.MonkeyPatch) -> None:
    lengths = np.random.default_rng(5).integers(20, 70, 12) / 25
    data = film(chain.from_iterable(scene(n, s) for n, s in enumerate(lengths)), codec=codec, container=container, key_every=key_every)
    whole = cuts_of(data, 30.0)
    assert whole == pytest.approx(np.cumsum(lengths)[:-1].tolist(), abs=0.002)
    monkeypatch.setattr(scenes, "_STRETCH_S", (0.7, 0.7))
    assert cuts_of(data, 30.0) == whole


def test_a_part_is_looked_at_alone() -> None:
    found = find_cuts(Source.of(film(three())), LIMITS, 2.5, 5.0)
    assert (found.times_s, found.until_s) == ((), 5.0)
    assert find_cuts(Source.of(film(three())), LIMITS, 2.0, 5.3).times_s == pytest.approx(THREE)


def test_how_long_a_stretch_is_depends_on_what_a_second_costs() -> None:
    assert stretch_s(320, 240, 25) == 60.0
    assert 20 < stretch_s(1920, 1080, 25) < 40
    assert stretch_s(7680, 4320, 60) == 2.0


def test_a_sound_has_no_cuts() -> None:
    assert find_cuts(Source.of(clips.sound("flac", "flac", clips.tone(16_000, 3.0), 16_000)), LIMITS, 0.0, 3.0).times_s == ()
    assert find_cuts(Source.of(clips.sound("aac", "mp4", clips.tone(16_000, 3.0), 16_000)), LIMITS, 0.0, 3.0).until_s == 3.0


def test_what_is_damaged_has_the_cuts_before_the_damage() -> None:
    data = film(three(), container="matroska", key_every=10)
    broken = bytearray(data)
    broken[len(data) * 2 // 3 :] = bytes(len(data) - len(data) * 2 // 3)
    found = find_cuts(Source.of(bytes(broken), name="broken.mkv"), LIMITS, 0.0, 7.6)
    assert found.times_s == pytest.approx(THREE[:1], abs=0.002)
    assert found.until_s == 7.6
    assert find_cuts(Source.of(b"\0\0\0\x18ftypmp42 and nothing else", name="junk.mp4"), LIMITS, 0.0, 9.0).times_s == ()
    with pytest.raises(EmptyMedia):
        find_cuts(Source.of(b"", name="nothing"), LIMITS, 0.0, 9.0)


def test_a_stretch_of_a_long_video_costs_what_the_stretch_does(monkeypatch: pytest.MonkeyPatch) -> None:
    rate = 5
    source = Source.of(film(chain.from_iterable(scene(n, 30, rate=rate) for n in range(34)), rate=rate, key_every=25))  # 17 minutes
    decoded = 0

    def counted(*given: Any) -> Iterator[Any]:
        nonlocal decoded
        for frame in frames_from(*given):
            decoded += 1
            yield frame

    frames_from = scenes._frames_from
    monkeypatch.setattr(scenes, "_frames_from", counted)
    found = find_cuts(source, LIMITS, 630.5, 1200.0)
    assert found.until_s == 690.5
    assert [round(cut, 3) for cut in found.times_s] == [660.0, 690.0]
    assert 60 * rate <= decoded <= 60 * rate + 2 * 25
