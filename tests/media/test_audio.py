from __future__ import annotations

import io
import struct
from pathlib import Path

import numpy as np
import pytest
import soundfile
from numpy.typing import NDArray

from bindery.errors import EmptyMedia, InvalidParameter, NoAudioStream, TooLong, UnreadableMedia, UnsupportedMedia
from bindery.limits import Limits
from bindery.media.audio import decode_waveform
from bindery.media.source import Source
from tests.media import clips

LIMITS = Limits()


def lag(heard: NDArray[np.float32], truth: NDArray[np.float32]) -> int:
    """Samples by which ``heard`` comes late."""
    size = 2 * min(len(heard), len(truth))
    spectrum = np.fft.rfft(heard, size) * np.conj(np.fft.rfft(truth, size))
    at = int(np.fft.irfft(spectrum, size).argmax())
    return at - size if at > size // 2 else at


@pytest.mark.parametrize("channels", [1, 2, 6])
@pytest.mark.parametrize(
    ("file_format", "subtype"), [("WAV", "PCM_16"), ("WAV", "PCM_24"), ("WAV", "FLOAT"), ("FLAC", "PCM_16"), ("AIFF", "PCM_16")]
)
def test_lossless_sound_comes_back_as_stored(file_format: str, subtype: str, channels: int) -> None:
    truth = clips.tone(22_050, 0.2, channels)
    file = io.BytesIO()
    soundfile.write(file, truth.T, 22_050, format=file_format, subtype=subtype)
    waveform = decode_waveform(Source.of(file.getvalue()), LIMITS)
    assert waveform.rate == 22_050
    assert waveform.samples.dtype == np.float32
    assert waveform.samples.shape == truth.shape
    assert np.abs(waveform.samples - truth).max() <= (3.1e-5 if subtype == "PCM_16" else 2e-7)


@pytest.mark.parametrize(
    ("codec", "container", "rate", "channels"),
    [
        ("aac", "mp4", 44_100, 1),
        ("aac", "ipod", 48_000, 2),
        ("aac", "mov", 48_000, 1),
        ("libopus", "ogg", 48_000, 2),
        ("libopus", "webm", 48_000, 1),
        ("libmp3lame", "mp3", 44_100, 2),
        ("flac", "flac", 44_100, 2),
        ("flac", "ogg", 44_100, 1),
        ("alac", "ipod", 44_100, 2),
        ("adpcm_ms", "wav", 22_050, 1),
        ("pcm_alaw", "wav", 8_000, 1),
    ],
)
def test_coded_sound_has_its_length_and_place(codec: str, container: str, rate: int, channels: int) -> None:
    truth = clips.tone(rate, 1.0, channels)
    waveform = decode_waveform(Source.of(clips.sound(codec, container, truth, rate)), LIMITS)
    assert waveform.rate == rate
    assert waveform.samples.shape[0] == channels
    assert abs(waveform.samples.shape[1] - truth.shape[1]) < 0.02 * rate  # a block of ADPCM at most; AAC's padding is cut off
    assert lag(waveform.samples[0], truth[0]) == 0
    correlation = np.corrcoef(waveform.samples[0, : truth.shape[1]], truth[0, : waveform.samples.shape[1]])[0, 1]
    assert correlation > 0.98


def test_vorbis_is_read() -> None:
    file = io.BytesIO()
    soundfile.write(file, clips.tone(44_100, 0.5).T, 44_100, format="OGG", subtype="VORBIS")
    assert decode_waveform(Source.of(file.getvalue()), LIMITS).samples.shape == (1, 22_050)


def test_the_sound_of_a_video_is_read() -> None:
    waveform = decode_waveform(Source.of(clips.video("mpeg4", "mp4", frames=30, sound_rate=44_100)), LIMITS)
    assert waveform.rate == 44_100
    assert waveform.samples.shape == (1, 44_100)


@pytest.mark.parametrize(
    ("codec", "container"), [("flac", "flac"), ("libmp3lame", "mp3"), ("libopus", "ogg"), ("alac", "ipod"), ("pcm_s16le", "mov")]
)
def test_a_part_is_that_part_of_the_whole(codec: str, container: str) -> None:
    data = clips.sound(codec, container, clips.tone(48_000, 3.0), 48_000)
    whole = decode_waveform(Source.of(data), LIMITS).samples
    part = decode_waveform(Source.of(data), LIMITS, start=1.25, end=2.0).samples
    assert np.abs(part - whole[:, 60_000:96_000]).max() < 1e-6


@pytest.mark.parametrize(("codec", "container", "slack"), [("aac", "ipod", 0), ("libopus", "webm", 48)])
def test_a_part_of_lossy_sound_is_in_place(codec: str, container: str, slack: int) -> None:
    """AAC decodes a little differently after a seek; Matroska's time stamps are whole milliseconds."""
    truth = clips.tone(48_000, 3.0)
    part = decode_waveform(Source.of(clips.sound(codec, container, truth, 48_000)), LIMITS, start=1.25, end=2.0).samples
    assert part.shape == (1, 36_000)
    assert abs(lag(part[0], truth[0, 60_000:96_000])) <= slack


def test_an_end_beyond_the_file_is_its_end_and_a_start_beyond_is_an_error() -> None:
    for codec, container in (("flac", "flac"), ("alac", "ipod"), ("libopus", "webm")):
        source = Source.of(clips.sound(codec, container, clips.tone(48_000, 1.0), 48_000))
        assert decode_waveform(source, LIMITS, start=0.5, end=99.0).samples.shape[1] == pytest.approx(24_000, abs=400)
        with pytest.raises(InvalidParameter, match="start is 5 s") as caught:
            decode_waveform(source, LIMITS, start=5.0)
        assert caught.value.pointer == "/options/start"


@pytest.mark.parametrize("seconds_from", [0.0, 2.0])
def test_too_long_is_told_from_the_header_and_a_part_is_taken(seconds_from: float) -> None:
    limits = Limits(media_seconds=1.0)
    for codec, container in (("flac", "flac"), ("alac", "ipod"), ("libopus", "webm")):
        source = Source.of(clips.sound(codec, container, clips.tone(48_000, 4.0), 48_000))
        with pytest.raises(TooLong, match="media_seconds"):
            decode_waveform(source, limits, start=seconds_from)
        assert decode_waveform(source, limits, start=seconds_from, end=seconds_from + 0.5).samples.shape == (1, 24_000)


def test_a_wav_that_claims_ten_hours_is_too_long_at_once() -> None:
    with pytest.raises(TooLong, match=r"36000\.0 s"):
        decode_waveform(Source.of(clips.wav(b"\0" * 1000, claimed=16_000 * 2 * 36_000)), LIMITS)


def test_a_wav_written_to_a_pipe_ends_where_the_file_ends() -> None:
    samples = decode_waveform(Source.of(clips.wav(b"\1\0" * 8000, claimed=0xFFFFFFFF)), LIMITS).samples
    assert samples.shape == (1, 8000)


def test_a_wav_of_no_samples_is_empty_media() -> None:
    with pytest.raises(EmptyMedia, match="no samples"):
        decode_waveform(Source.of(clips.wav(b"")), LIMITS)


def test_a_video_without_sound_has_no_audio_stream() -> None:
    with pytest.raises(NoAudioStream):
        decode_waveform(Source.of(clips.video("mpeg4", frames=3)), LIMITS)


def test_too_many_channels_are_unsupported_and_mad_rates_unreadable() -> None:
    with pytest.raises(UnsupportedMedia, match="12 channels"):
        decode_waveform(Source.of(clips.wav(b"\1\0" * 12_000, channels=12)), LIMITS)
    with pytest.raises(UnreadableMedia, match="2147483647 Hz"):
        decode_waveform(Source.of(clips.wav(b"\1\0" * 1000, rate=2**31 - 1)), LIMITS)


def test_more_samples_than_memory_are_too_long() -> None:
    with pytest.raises(TooLong, match="need"):
        decode_waveform(Source.of(clips.wav(b"\1\0" * 100_000)), Limits(decode_memory_bytes=400_000))


def test_not_a_number_becomes_silence() -> None:
    file = io.BytesIO()
    soundfile.write(file, np.array([0.5, np.nan, np.inf, -0.5], np.float32), 16_000, format="WAV", subtype="FLOAT")
    assert decode_waveform(Source.of(file.getvalue()), LIMITS).samples.tolist() == [[0.5, 0.0, 0.0, -0.5]]


@pytest.mark.parametrize("share", [0.3, 0.9])
@pytest.mark.parametrize(
    ("codec", "container"),
    [
        ("pcm_s16le", "wav"),
        ("flac", "flac"),
        ("libmp3lame", "mp3"),
        ("libopus", "ogg"),
        ("pcm_s16be", "aiff"),
        ("aac", "ipod"),
        ("aac", "adts"),
        ("libopus", "webm"),
        ("aac", "matroska"),
    ],
)
def test_cut_off_sound_is_unreadable_media(codec: str, container: str, share: float) -> None:
    data = clips.sound(codec, container, clips.tone(48_000, 2.0), 48_000)
    with pytest.raises(UnreadableMedia, match=r"^cut"):
        decode_waveform(Source.of(data[: int(len(data) * share)], "cut"), LIMITS)


def test_a_path_and_its_bytes_give_the_same_samples(tmp_path: Path) -> None:
    for codec, container in (("aac", "ipod"), ("flac", "flac"), ("libmp3lame", "mp3")):
        path = tmp_path / container
        path.write_bytes(clips.sound(codec, container, clips.tone(44_100, 0.5), 44_100))
        by_path, by_bytes = decode_waveform(Source.of(path), LIMITS), decode_waveform(Source.of(path.read_bytes()), LIMITS)
        assert np.array_equal(by_path.samples, by_bytes.samples)


def test_what_libsndfile_refuses_ffmpeg_reads() -> None:
    truth = clips.tone(44_100, 1.0)
    data = clips.sound("adpcm_yamaha", "wav", truth, 44_100)
    with pytest.raises(soundfile.LibsndfileError):
        soundfile.SoundFile(io.BytesIO(data))
    assert lag(decode_waveform(Source.of(data), LIMITS).samples[0], truth[0]) == 0


def test_a_wav_chunk_that_claims_the_world_is_refused_before_it_is_read() -> None:
    damaged = clips.wav(b"\1\0" * 100).replace(b"data", b"LIST").replace(struct.pack("<I", 200), struct.pack("<I", 0x80000000))
    with pytest.raises(UnreadableMedia, match="LIST"):
        decode_waveform(Source.of(damaged), LIMITS)


def test_values_that_no_sound_has_are_silence() -> None:
    file = io.BytesIO()
    soundfile.write(file, np.array([0.5, 3e38, -3e38, np.nan, -0.5], np.float32), 16_000, format="WAV", subtype="FLOAT")
    samples = decode_waveform(Source.of(file.getvalue(), name="loud.wav"), Limits()).samples
    assert samples.tolist() == [[0.5, 0.0, 0.0, 0.0, -0.5]]
