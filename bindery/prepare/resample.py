"""Sample rate conversion: the reference's windowed sinc, or soxr."""

from __future__ import annotations

import math

import numpy as np
import soxr
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

# torchaudio's defaults
_LOWPASS_WIDTH = 6  # zero crossings on each side
_ROLLOFF = 0.99

Samples = NDArray[np.float32]


def sinc_hann(samples: Samples, rate: int, new_rate: int) -> Samples:
    """One channel ``(samples,)`` at ``new_rate``, ceil(n * new / old) long: torchaudio's `resample` with its defaults.

    Kernel and sums are float32; silence is assumed outside. Only the taps inside the window are computed, so the cost
    does not depend on how awkward the ratio of the rates is.
    """
    if rate == new_rate:
        return samples
    divisor = math.gcd(rate, new_rate)
    old, new = rate // divisor, new_rate // divisor
    base = min(old, new) * _ROLLOFF
    width = math.ceil(_LOWPASS_WIDTH * old / base)
    length = -(-new * len(samples) // old)
    steps = -(-length // new)  # outputs of each phase
    taps = 2 * width + 2
    padded = np.zeros(width + steps * old + width + 2, dtype=np.float32)
    padded[width : width + len(samples)] = samples
    windows = sliding_window_view(padded, taps)
    out = np.empty((steps, new), dtype=np.float32)
    for phase in range(new):
        # output number s * new + phase lies at input position s * old + phase * old / new
        first = phase * old // new  # tap k reads input s * old + first - width + k
        out[:, phase] = windows[first::old][:steps] @ _kernel(first - width + np.arange(taps), phase, old, new, base)
    return out.reshape(-1)[:length]


def _kernel(places: NDArray[np.int64], phase: int, old: int, new: int, base: float) -> Samples:
    t = np.float32(-phase) / np.float32(new) + places.astype(np.float32) / np.float32(old)
    t = np.clip(t * np.float32(base), np.float32(-_LOWPASS_WIDTH), np.float32(_LOWPASS_WIDTH))
    window = np.cos(t * np.float32(math.pi / _LOWPASS_WIDTH / 2)) ** 2
    angle = t * np.float32(math.pi)
    sinc = np.where(angle == 0, np.float32(1.0), np.sin(angle) / np.where(angle == 0, np.float32(1.0), angle))
    return np.asarray(sinc * window * np.float32(base / old), dtype=np.float32)


def soxr_hq(samples: Samples, rate: int, new_rate: int) -> Samples:
    """One channel at ``new_rate`` by soxr's HQ recipe."""
    return samples if rate == new_rate else np.asarray(soxr.resample(samples, rate, new_rate, quality="HQ"), dtype=np.float32)
