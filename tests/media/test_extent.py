from __future__ import annotations

import pytest

from bindery.errors import EmptyMedia, NoAudioStream, NoVideoStream
from bindery.limits import Limits
from bindery.media.extent import measure_audio, measure_video
from bindery.media.source import Source
from tests.media import clips

LIMITS = Limits()
RATE = 44_100


@pytest.mark.parametrize(
    ("codec", "container"),
    [("pcm_s16le", "wav"), ("flac", "flac"), ("libopus", "ogg"), ("mp3", "mp3"), ("aac", "mp4"), ("aac", "adts"),
     ("libopus", "webm")],
)  # fmt: skip
def test_a_sounds_length_is_known_without_decoding(codec: str, container: str) -> None:
    rate = 48_000 if codec == "libopus" else RATE
    extent = measure_audio(Source.of(clips.sound(codec, container, clips.tone(rate, 3.0), rate)), LIMITS)
    assert extent.stream_s == pytest.approx(3.0, abs=0.08)  # a lossy codec pads to whole frames
    assert extent.file_s == extent.stream_s


@pytest.mark.parametrize(
    ("codec", "container"), [("libx264", "mp4"), ("libx264", "matroska"), ("libvpx-vp9", "webm"), ("mpeg4", "avi"), ("libx264", "mov")]
)
def test_a_videos_length_is_known_without_decoding(codec: str, container: str) -> None:
    extent = measure_video(Source.of(clips.video(codec, container, frames=60)), LIMITS)
    assert extent.stream_s == pytest.approx(2.0, abs=0.04)


def test_a_file_with_both_lasts_as_long_as_the_longer_of_the_two() -> None:
    source = Source.of(clips.video(frames=60, sound_rate=RATE))
    assert measure_audio(source, LIMITS).file_s == measure_video(source, LIMITS).file_s


def test_the_stream_that_is_asked_for_must_be_there() -> None:
    with pytest.raises(NoAudioStream):
        measure_audio(Source.of(clips.video(frames=5)), LIMITS)
    with pytest.raises(NoVideoStream):
        measure_video(Source.of(clips.sound("aac", "mp4", clips.tone(RATE, 0.5), RATE)), LIMITS)
    with pytest.raises(EmptyMedia):
        measure_audio(Source.of(b"", name="nothing"), LIMITS)
