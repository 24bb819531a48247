from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from bindery.prepare.resample import sinc_hann, soxr_hq


def by_convolution(samples: np.ndarray, rate: int, new_rate: int) -> np.ndarray:
    """torchaudio's algorithm as published: every phase of the kernel at full width, one strided convolution."""
    divisor = math.gcd(rate, new_rate)
    old, new = rate // divisor, new_rate // divisor
    base = min(old, new) * 0.99
    width = math.ceil(6 * old / base)
    places = torch.arange(-width, width + old, dtype=torch.float32)[None, None] / old
    t = (torch.arange(0, -new, -1, dtype=torch.float32)[:, None, None] / new + places) * base
    t = t.clamp(-6, 6)
    window = torch.cos(t * math.pi / 6 / 2) ** 2
    t = t * math.pi
    kernel = torch.where(t == 0, torch.tensor(1.0), t.sin() / t) * window * (base / old)
    padded = torch.nn.functional.pad(torch.from_numpy(samples)[None, None], (width, width + old))
    out = torch.nn.functional.conv1d(padded, kernel, stride=old).transpose(1, 2).reshape(-1)
    return out[: math.ceil(new * len(samples) / old)].numpy()


@settings(max_examples=25, deadline=None)
@given(
    rate=st.sampled_from([4000, 8000, 11_025, 22_050, 32_000, 44_100, 48_000, 96_000]),
    new_rate=st.sampled_from([8000, 16_000, 24_000]),
    count=st.integers(1, 3000),
)
def test_the_sinc_is_torchaudios(rate: int, new_rate: int, count: int) -> None:
    assume(rate != new_rate)  # torchaudio returns its argument then, and so does bindery
    samples = np.random.default_rng(count).normal(0, 0.3, count).astype(np.float32)
    ours, theirs = sinc_hann(samples, rate, new_rate), by_convolution(samples, rate, new_rate)
    assert ours.dtype == np.float32
    assert ours.shape == theirs.shape
    assert np.abs(ours - theirs).max() < 2e-6


@pytest.mark.parametrize("resample", [sinc_hann, soxr_hq])
def test_a_tone_keeps_its_pitch_and_loudness(resample) -> None:  # type: ignore[no-untyped-def]
    for rate in (8_000, 44_100, 44_101):
        tone = np.sin(2 * np.pi * 1000 * np.arange(rate) / rate).astype(np.float32)
        heard = resample(tone, rate, 16_000)
        expected = np.sin(2 * np.pi * 1000 * np.arange(16_000) / 16_000)
        assert np.abs(heard - expected)[200:-200].max() < 0.01


def test_the_same_rate_is_left_alone() -> None:
    samples = np.ones(10, np.float32)
    assert sinc_hann(samples, 16_000, 16_000) is samples
