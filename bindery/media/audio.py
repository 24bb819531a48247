"""Sound: WAV, FLAC, MP3, Ogg, AIFF by libsndfile; M4A, AAC and the sound of videos by FFmpeg. Float samples at the file's own rate."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import av
import av.audio
import av.container
import av.error
import numpy as np
import soundfile
from numpy.typing import NDArray

from bindery.decoded import Waveform
from bindery.errors import EmptyMedia, InvalidParameter, NoAudioStream, TooLong, UnreadableMedia, UnsupportedMedia
from bindery.limits import Limits
from bindery.media.container import open_container
from bindery.media.guard import check_seconds
from bindery.media.sniff import require_type
from bindery.media.source import Source
from bindery.media.wav import check_wav
from bindery.media.whole import check_whole

SNDFILE_TYPES = ("audio/wav", "audio/flac", "audio/mpeg", "audio/ogg", "audio/aiff")
_AV_ONLY_TYPES = ("audio/mp4", "audio/aac", "video/mp4", "video/quicktime", "video/webm", "video/x-matroska", "video/x-msvideo")
MEDIA_TYPES = (*SNDFILE_TYPES, *_AV_ONLY_TYPES)

_MAX_RATE_HZ = 768_000  # beyond any sound card; a header that claims more is damaged, and resampling cost grows with it
_MP3_HEAD_BYTES = 8192
_LOUDEST = 2.0**31  # full scale of the widest integers, for floats that were never scaled down; beyond, energies overflow float32
_PREROLL_S = 0.25  # decoders need some packets after a seek before their output is exact (Opus 80 ms, AAC and MP3 a frame or two)


@dataclass(frozen=True, slots=True)
class _Span:
    """The asked part in samples; ``last`` is None when it runs to the end."""

    first: int
    last: int | None

    @classmethod
    def of(cls, start: float | None, end: float | None, rate: int) -> _Span:
        return cls(round((start or 0.0) * rate), None if end is None else round(end * rate))


def decode_waveform(source: Source, limits: Limits, *, start: float | None = None, end: float | None = None) -> Waveform:
    """The samples from ``start`` to ``end`` seconds (an end beyond the file is the file's end).

    Raises `UnsupportedMedia`, `NoAudioStream`, `EmptyMedia`, `TooLong`, `UnreadableMedia`; `InvalidParameter` when
    ``start`` lies beyond the end.
    """
    media_type = require_type(source, MEDIA_TYPES, "audio")
    if start is not None and end is not None:
        check_seconds(f"the asked part of {source.name}", end - start, limits)
    if media_type == "audio/wav":
        check_wav(source, limits, checks_length=end is None)
    elif end is None:
        check_whole(source, media_type)
    if media_type in SNDFILE_TYPES:
        try:
            waveform = _by_sndfile(source, limits, start, end)
        except soundfile.LibsndfileError:
            # libsndfile 1.2 refuses some sound files that FFmpeg reads (Ogg Opus as FFmpeg writes it, odd WAV codecs)
            waveform = _by_ffmpeg(source, media_type, limits, start, end)
    else:
        waveform = _by_ffmpeg(source, media_type, limits, start, end)
    return Waveform(_finite(waveform.samples), waveform.rate)


def _by_sndfile(source: Source, limits: Limits, start: float | None, end: float | None) -> Waveform:
    with source.open() as raw, soundfile.SoundFile(raw) as sound:
        _check_stream(source, sound.channels, sound.samplerate, limits)
        total = sound.frames
        if total == 0:
            raise EmptyMedia(f"{source.name} holds no samples")
        span = _Span.of(start, end, sound.samplerate)
        last = total if span.last is None else min(span.last, total)
        _check_span(source, span.first, last, total / sound.samplerate, sound.samplerate, sound.channels, limits)
        if span.first:
            sound.seek(span.first)
        samples = sound.read(last - span.first, dtype="float32", always_2d=True)  # (samples, channels)
        if len(samples) < last - span.first and (sound.format != "MP3" or _states_length(source)):
            raise UnreadableMedia(f"{source.name} is cut off: {len(samples)} of {last - span.first} samples are there")
        if len(samples) == 0:
            raise UnreadableMedia(f"{source.name}: no sample could be decoded")
        return Waveform(samples.T, sound.samplerate)


def _states_length(mp3: Source) -> bool:
    """Whether an MP3 file opens with an encoder's tag; without one libsndfile estimates the length from the bit rate."""
    head = mp3.head(_MP3_HEAD_BYTES)
    return b"Xing" in head or b"Info" in head


def _by_ffmpeg(source: Source, media_type: str, limits: Limits, start: float | None, end: float | None) -> Waveform:
    with open_container(source, media_type, limits) as container:
        if not container.streams.audio:
            raise NoAudioStream(f"{source.name} ({media_type}) has no audio stream")
        stream = container.streams.audio[0]
        rate = stream.codec_context.sample_rate
        _check_stream(source, stream.codec_context.channels, rate, limits)
        length_s = _stated_seconds(stream)
        if length_s is not None:
            span_end = length_s if end is None else min(end, length_s)
            _check_span(source, round((start or 0.0) * rate), round(span_end * rate), length_s, rate, stream.codec_context.channels, limits)
        span = _Span.of(start, end, rate)
        if length_s is not None and (span.last is None or span.last > round(length_s * rate)):
            span = _Span(span.first, round(length_s * rate))  # AAC and MP3 decode to whole frames: the rest is padding
        samples = _collect(source, container, stream, span, limits)
    return Waveform(samples, rate)


def _stated_seconds(stream: av.audio.AudioStream) -> float | None:
    if stream.duration is None or stream.time_base is None or stream.duration <= 0:
        return None
    return float(stream.duration * stream.time_base)


def _collect(
    source: Source, container: av.container.InputContainer, stream: av.audio.AudioStream, span: _Span, limits: Limits
) -> NDArray[np.float32]:
    """Decoded samples of the span, ``(channels, samples)``; stops decoding at its end or at the limit."""
    rate, channels = stream.codec_context.sample_rate, stream.codec_context.channels
    most = int(limits.media_seconds * rate) + 1
    parts: list[NDArray[np.float32]] = []
    taken = 0
    if span.first > _PREROLL_S * rate and stream.time_base is not None:
        wanted_s = span.first / rate - _PREROLL_S
        container.seek((stream.start_time or 0) + int(wanted_s / stream.time_base), stream=stream)
    for position, block in _blocks(container, stream):  # block (channels, samples), position its first sample's number
        low = max(span.first - position, 0)
        high = block.shape[1] if span.last is None else min(span.last - position, block.shape[1])
        if high > low:
            if block.shape[0] != channels:
                raise UnreadableMedia(f"{source.name} changes from {channels} to {block.shape[0]} channels on the way")
            parts.append(block[:, low:high])
            taken += high - low
        if taken > most:
            raise TooLong(
                f"{source.name} lasts longer than {limits.media_seconds:g} s (limit media_seconds): ask for a part with start and end"
            )
        if span.last is not None and position + block.shape[1] >= span.last:
            break
    if not parts:
        if span.first:
            raise InvalidParameter(f"start is {span.first / rate:g} s, but {source.name} ends before", pointer="/options/start")
        raise EmptyMedia(f"{source.name} holds no samples")
    return np.concatenate(parts, axis=1)


def _blocks(container: av.container.InputContainer, stream: av.audio.AudioStream) -> Iterator[tuple[int, NDArray[np.float32]]]:
    rate = stream.codec_context.sample_rate
    to_float = av.AudioResampler(format="fltp")  # the number format alone: rate and channels stay
    origin = (stream.start_time or 0) * (stream.time_base or 0)
    position: int | None = None
    for packet in container.demux(stream):
        if packet.is_corrupt:
            raise av.error.InvalidDataError(0, "the file is cut off or damaged")
        for frame in packet.decode():
            if position is None:
                position = 0 if frame.pts is None or frame.time_base is None else round(float(frame.pts * frame.time_base - origin) * rate)
            for converted in to_float.resample(frame):
                block = np.asarray(converted.to_ndarray(), dtype=np.float32)
                yield position, block
                position += block.shape[1]


def _check_stream(source: Source, channels: int, rate: int, limits: Limits) -> None:
    if channels > limits.audio_channels:
        raise UnsupportedMedia(f"{source.name} has {channels} channels; at most {limits.audio_channels} are taken (limit audio_channels)")
    if not 0 < rate <= _MAX_RATE_HZ or channels < 1:
        raise UnreadableMedia(f"{source.name} claims {channels} channels at {rate} Hz; rates up to {_MAX_RATE_HZ} Hz are taken")


def _check_span(source: Source, first: int, last: int, length_s: float, rate: int, channels: int, limits: Limits) -> None:
    if first >= last and first > 0:
        raise InvalidParameter(f"start is {first / rate:g} s, but {source.name} lasts {length_s:.3f} s", pointer="/options/start")
    check_seconds(source.name, (last - first) / rate, limits)
    needed = (last - first) * channels * 4 * 2  # float32, once as read and once while preparing
    if needed > limits.decode_memory_bytes:
        seconds = (last - first) / rate
        raise TooLong(f"{source.name}: {channels} channels of {seconds:.0f} s need {needed} bytes; ask for a part with start and end")


def _finite(samples: NDArray[np.float32]) -> NDArray[np.float32]:
    """Not-a-number, infinity and what no sound can be (float files hold them) become silence: one would spoil the whole vector."""
    if samples.min() >= -_LOUDEST and samples.max() <= _LOUDEST:  # False for not-a-number too
        return samples
    return np.where(np.abs(samples) <= _LOUDEST, samples, np.float32(0.0))
