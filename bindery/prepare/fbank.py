"""Log-mel filter bank: Kaldi's with the settings of the reference, unless the spec says otherwise. Vectorised; all in float32."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

from bindery.spec import AudioSpec

Floats = NDArray[np.float32]

_FRAME_S, _SHIFT_S = 0.025, 0.010
_FLOOR = np.float32(np.finfo(np.float32).eps)  # log of silence: -15.942385
_BLOCK = 128  # frames at a time: every step's array stays in the processor's cache


def frame_samples(spec: AudioSpec) -> int:
    return int(spec.sample_rate * _FRAME_S)


def shift_samples(spec: AudioSpec) -> int:
    return int(spec.sample_rate * _SHIFT_S)


def frame_count(samples: int, spec: AudioSpec) -> int:
    """Whole frames in ``samples`` samples (none is added at the edges)."""
    return 0 if samples < frame_samples(spec) else 1 + (samples - frame_samples(spec)) // shift_samples(spec)


def log_mel(samples: Floats, spec: AudioSpec) -> Floats:
    """``(samples,)`` in [-1, 1] to natural-log mel energies ``(frames, mel_bins)``."""
    frames = sliding_window_view(samples, frame_samples(spec))[:: shift_samples(spec)]  # (frames, size), a view
    energies = np.empty((len(frames), spec.mel_bins), dtype=np.float32)
    for first in range(0, len(frames), _BLOCK):
        energies[first : first + _BLOCK] = _energies(frames[first : first + _BLOCK], spec)
    lifted = energies + np.float32(spec.log_offset) if spec.log_offset else np.maximum(energies, _FLOOR)
    return np.asarray(np.log(lifted), dtype=np.float32)


def _energies(frames: Floats, spec: AudioSpec) -> Floats:
    """``(frames, size)`` to mel energies ``(frames, mel_bins)``."""
    size = frames.shape[1]
    if spec.frame_mean == "removed":
        frames = frames - frames.mean(axis=1, keepdims=True, dtype=np.float32)
    if spec.preemphasis:
        share = frames * np.float32(spec.preemphasis)
        frames = np.concatenate([frames[:, :1] - share[:, :1], frames[:, 1:] - share[:, :-1]], axis=1)  # the first is its own predecessor
    spectrum = np.fft.rfft(frames * _window(size), n=_padded(size), axis=1)  # (frames, padded / 2 + 1)
    power = spectrum.real**2 + spectrum.imag**2
    if spec.spectrum == "magnitude":
        power = np.sqrt(power)
    high_hz = spec.high_hz if spec.high_hz > 0 else spec.high_hz + spec.sample_rate / 2
    return np.asarray(power @ _filters(spec.mel_bins, _padded(size), spec.sample_rate, spec.low_hz, high_hz), dtype=np.float32)


def _padded(size: int) -> int:
    return 1 << (size - 1).bit_length()


@lru_cache(maxsize=8)
def _window(size: int) -> Floats:
    """Hann, symmetric."""
    angle = 2.0 * np.pi * np.arange(size) / (size - 1)
    return np.asarray(0.5 - 0.5 * np.cos(angle), dtype=np.float32)


@lru_cache(maxsize=8)
def _filters(bins: int, padded: int, rate: int, low_hz: float, high_hz: float) -> Floats:
    """Triangles in mel, ``(padded / 2 + 1, bins)``; the last row (Nyquist) has weight 0."""
    low, high = 1127.0 * np.log1p(low_hz / 700.0), 1127.0 * np.log1p(high_hz / 700.0)
    step = (high - low) / (bins + 1)
    left = np.float32(low) + np.arange(bins, dtype=np.float32) * np.float32(step)
    centre, right = left + np.float32(step), left + np.float32(2 * step)
    mel = np.float32(1127.0) * np.log1p(np.float32(rate / padded) * np.arange(padded // 2, dtype=np.float32) / np.float32(700.0))
    up = (mel[:, None] - left) / (centre - left)
    down = (right - mel[:, None]) / (right - centre)
    triangles = np.maximum(np.minimum(up, down), np.float32(0.0))
    return np.concatenate([triangles, np.zeros((1, bins), dtype=np.float32)])
