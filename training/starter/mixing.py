"""More sounds from few: resampled, filtered, reversed, mixed, shifted copies. What one becomes follows from its generator alone."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import soxr
from numpy.typing import NDArray

Floats = NDArray[np.float32]

RATE = 16_000
LENGTH = 5 * RATE
_CLEAR_DB = -6.0
"""A second sound below this leaves the first one's name true."""


@dataclass(frozen=True, slots=True)
class Mixture:
    """``samples``: (80000,) in -1..1. ``clear``: it still sounds like what its first sound is called."""

    samples: Floats
    clear: bool


def mix(first: Floats, second: Floats, rng: np.random.Generator) -> Mixture | None:
    """A new sound of five seconds from one or two, 16 kHz. None where nothing is to be heard in it."""
    clear = True
    sound = _changed(first, rng)
    if rng.random() < 0.15:
        sound, clear = sound[::-1], False
    sound = _placed(sound, rng)
    if rng.random() < 0.6:
        other, level = _placed(_changed(second, rng), rng), rng.uniform(-24, 6)
        if (loud := _rms(other)) > 0:
            sound = sound + other * np.float32(_rms(sound) / loud * 10 ** (level / 20))
            clear &= level < _CLEAR_DB
    if rng.random() < 0.2:
        level = rng.uniform(-40, -10)
        noise = rng.standard_normal(LENGTH, dtype=np.float32)
        sound = sound + noise * np.float32(_rms(sound) * 10 ** (level / 20))
    peak = float(np.abs(sound).max())
    if not peak > 1e-6:
        return None
    return Mixture(np.asarray(sound / peak * 10 ** (rng.uniform(-24, 0) / 20), dtype=np.float32), clear)


def _changed(sound: Floats, rng: np.random.Generator) -> Floats:
    """Slower or faster, and through an equaliser of six bands; each every other time."""
    if rng.random() < 0.5:
        sound = np.asarray(soxr.resample(sound, RATE * rng.uniform(0.8, 1.25), RATE, quality="LQ"), dtype=np.float32)
    if rng.random() < 0.5:
        size = 1 << (len(sound) - 1).bit_length()
        spectrum = np.fft.rfft(sound, n=size)
        bands = np.geomspace(60, RATE / 2, 6)
        decibels = np.interp(np.fft.rfftfreq(size, 1 / RATE), bands, rng.uniform(-12, 6, size=6))
        sound = np.asarray(np.fft.irfft(spectrum * 10 ** (decibels / 20), n=size)[: len(sound)], dtype=np.float32)
    return sound


def _placed(sound: Floats, rng: np.random.Generator) -> Floats:
    """Five seconds of it: a part of a long sound turned round, a short one somewhere in silence."""
    if len(sound) >= LENGTH:
        start = rng.integers(len(sound) - LENGTH + 1)
        return np.roll(sound[start : start + LENGTH], rng.integers(LENGTH))
    before = int(rng.integers(LENGTH - len(sound) + 1))
    return np.pad(sound, (before, LENGTH - len(sound) - before))


def _rms(sound: Floats) -> float:
    return float(np.sqrt(np.mean(np.square(sound))))
