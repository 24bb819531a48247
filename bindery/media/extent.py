"""How long a file lasts, without decoding it: what its header states, or else its packets' times."""

from __future__ import annotations

import av.container
import av.stream
import soundfile

from bindery.decoded import Extent
from bindery.errors import EmptyMedia, NoAudioStream, NoVideoStream
from bindery.limits import Limits
from bindery.media import audio, video
from bindery.media.container import open_container
from bindery.media.guard import check_bytes
from bindery.media.sniff import require_type
from bindery.media.source import Source
from bindery.media.wav import check_wav

_ESTIMATES = frozenset({"audio/aac", "audio/mpeg"})  # their headers state no length; FFmpeg guesses it from the bit rate


def measure_audio(source: Source, limits: Limits) -> Extent:
    """Raises as `decode_waveform` does, but for length."""
    check_bytes(source, limits)
    media_type = require_type(source, audio.MEDIA_TYPES, "audio")
    if media_type == "audio/wav":
        check_wav(source, limits, checks_length=False)
    if media_type in audio.SNDFILE_TYPES and media_type not in _ESTIMATES:
        try:
            with source.open() as raw, soundfile.SoundFile(raw) as sound:
                seconds = sound.frames / sound.samplerate
        except soundfile.LibsndfileError:
            return _of_container(source, media_type, limits, "audio")  # as decoding does
        return _checked(source, Extent(seconds, seconds))
    return _of_container(source, media_type, limits, "audio")


def measure_video(source: Source, limits: Limits) -> Extent:
    """Raises as `decode_frames` does, but for length."""
    check_bytes(source, limits)
    return _of_container(source, require_type(source, video.MEDIA_TYPES, "video"), limits, "video")


def _of_container(source: Source, media_type: str, limits: Limits, wanted: str) -> Extent:
    with open_container(source, media_type, limits) as container:
        streams = [stream for stream in container.streams if stream.type in ("audio", "video") and not _is_cover(stream)]
        main = next((stream for stream in streams if stream.type == wanted), None)
        if main is None:
            raise (NoVideoStream if wanted == "video" else NoAudioStream)(f"{source.name} ({media_type}) has no {wanted} stream")
        lengths = {stream.index: _stated_s(stream) for stream in streams}
        if media_type in _ESTIMATES or not all(lengths.values()):
            lengths = _by_packets(container, streams)
        return _checked(source, Extent(max(lengths.values()), lengths[main.index]))


def _checked(source: Source, extent: Extent) -> Extent:
    if extent.stream_s <= 0:
        raise EmptyMedia(f"{source.name} lasts 0 s")
    return extent


def _is_cover(stream: av.stream.Stream) -> bool:
    return stream.type == "video" and bool(stream.disposition & av.stream.Disposition.attached_pic)


def _stated_s(stream: av.stream.Stream) -> float:
    return float(stream.duration * stream.time_base) if stream.duration and stream.time_base else 0.0


def _by_packets(container: av.container.InputContainer, streams: list[av.stream.Stream]) -> dict[int, float]:
    """From each stream's first time stamp to the end of its last packet; in bounded memory, at the cost of reading the file once."""
    first: dict[int, float] = {}
    last: dict[int, float] = {stream.index: 0.0 for stream in streams}
    for packet in container.demux(streams):
        at = packet.pts if packet.pts is not None else packet.dts
        if packet.size == 0 or at is None or packet.time_base is None:
            continue
        index, start_s = packet.stream.index, float(at * packet.time_base)
        first.setdefault(index, start_s)
        last[index] = max(last[index], start_s + float((packet.duration or 0) * packet.time_base) - first[index])
    return last
