"""Waveform -> ``pixel_values`` (windows, mel_bins, frames) float32: log-mel windows as the spec's rules of length say."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from bindery.decoded import Tensors, Waveform
from bindery.errors import UnreadableMedia
from bindery.prepare.fbank import frame_count, frame_samples, log_mel, shift_samples
from bindery.prepare.resample import sinc_hann, soxr_hq
from bindery.spec import AudioSpec

Floats = NDArray[np.float32]


def prepare_audio(waveform: Waveform, spec: AudioSpec) -> Tensors:
    """Raises `UnreadableMedia` below one 25 ms frame, when the spec's ``too_short`` is ``reject``."""
    sound = _one_channel(waveform, spec)
    if len(sound) < frame_samples(spec):
        if spec.too_short == "reject":
            raise UnreadableMedia(f"the sound lasts {1000 * len(sound) / spec.sample_rate:.1f} ms; at least one frame of 25 ms is needed")
        sound = np.pad(sound, (0, frame_samples(spec) - len(sound)))
    frames = frame_count(len(sound), spec)
    mels = [_short(sound, frames, spec)] * spec.windows if frames <= spec.frames else _long(sound, frames, spec)
    tensor = np.stack([mel.T for mel in mels])  # (windows, mel_bins, frames)
    tensor -= np.float32(spec.mean)
    tensor /= np.float32(spec.divisor)
    return {"pixel_values": np.ascontiguousarray(tensor)}


def window_starts(frames: int, spec: AudioSpec) -> tuple[int, ...]:
    """First frames of the ``spec.windows`` windows over a sound of ``frames`` > ``spec.frames`` frames.

    The candidates 0 .. frames - spec.frames are split into so many ranges, as equal as possible, larger ones first; an
    empty range stands for frame 0. ``even`` takes the first candidate, the last one, and what lies evenly between, rounded.
    """
    if spec.long_audio == "head":
        return (0,) * spec.windows
    if spec.long_audio == "even":
        return tuple(int(start) for start in np.linspace(0, frames - spec.frames, spec.windows).round())
    ranges = np.array_split(np.arange(frames - spec.frames + 1), spec.windows)
    places = [0 if spec.long_audio == "thirds_first" else len(candidates) // 2 for candidates in ranges]
    return tuple(int(candidates[place]) if len(candidates) else 0 for candidates, place in zip(ranges, places, strict=True))


def _one_channel(waveform: Waveform, spec: AudioSpec) -> Floats:
    """The chosen channel at the model's rate, less the mean over all channels."""
    channels = waveform.samples  # (channels, samples)
    one = channels[0] if spec.audio_channels == "first" else _mean_channel(channels)
    resample = sinc_hann if spec.resampler == "sinc_hann" else soxr_hq
    sound = resample(np.ascontiguousarray(one), waveform.rate, spec.sample_rate)
    level = channels.mean(dtype=np.float64)
    centred = np.empty_like(sound)  # not in place: it may be the file's own samples
    np.subtract(sound, level, out=centred, dtype=np.float64, casting="same_kind")
    return centred


def _mean_channel(channels: Floats) -> Floats:
    """Channel by channel: numpy's own mean adds up a few channels per sample, and takes ten times as long."""
    total = np.array(channels[0])
    for channel in channels[1:]:
        total += channel
    total /= np.float32(len(channels))
    return total


def _short(sound: Floats, frames: int, spec: AudioSpec) -> Floats:
    """``(spec.frames, mel_bins)`` from a sound of at most that many frames."""
    if spec.short_audio == "repeat_pad" and frames < spec.frames:
        return log_mel(_repeat_then_zeros(sound, spec), spec)
    mel = log_mel(sound, spec)
    return np.tile(mel, (spec.frames // frames + 1, 1))[: spec.frames]


def _repeat_then_zeros(sound: Floats, spec: AudioSpec) -> Floats:
    length = (spec.frames - 1) * shift_samples(spec) + frame_samples(spec)
    whole = np.tile(sound, length // len(sound))
    return np.pad(whole, (0, length - len(whole)))


def _long(sound: Floats, frames: int, spec: AudioSpec) -> list[Floats]:
    """The windows; only their own samples are transformed, so a long sound costs no more than a short one; what they share, once."""
    starts = window_starts(frames, spec)
    low, whole = min(starts), max(starts) - min(starts) + spec.frames
    if whole < len(starts) * spec.frames:
        mel = log_mel(_samples_of(sound, low, whole, spec), spec)
        return [mel[start - low : start - low + spec.frames] for start in starts]
    return [log_mel(_samples_of(sound, start, spec.frames, spec), spec) for start in starts]


def _samples_of(sound: Floats, first: int, frames: int, spec: AudioSpec) -> Floats:
    """The samples of so many frames."""
    begin = first * shift_samples(spec)
    return sound[begin : begin + (frames - 1) * shift_samples(spec) + frame_samples(spec)]
