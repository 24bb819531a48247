from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bindery.decoded import Waveform
from bindery.errors import UnreadableMedia
from bindery.prepare.audio import prepare_audio, window_starts
from bindery.prepare.fbank import frame_count, log_mel
from bindery.spec import AudioSpec
from tests.media import clips

SPEC = AudioSpec(frames=50, mel_bins=40)


def mel(samples: np.ndarray, rate: int = 16_000, **fields: object) -> np.ndarray:
    spec = SPEC.model_copy(update=fields)
    tensor = prepare_audio(Waveform(np.atleast_2d(samples).astype(np.float32), rate), spec)["pixel_values"]
    assert tensor.shape == (spec.windows, spec.mel_bins, spec.frames)
    assert tensor.dtype == np.float32
    return tensor


def noise(samples: int, channels: int = 1) -> np.ndarray:
    return np.random.default_rng(0).normal(0, 0.1, (channels, samples)).astype(np.float32)


@pytest.mark.parametrize(
    ("frames", "starts"), [(3498, (0, 821, 1642)), (3098, (0, 688, 1376)), (1198, (0, 55, 109)), (1037, (0, 1, 0)), (1039, (0, 2, 3))]
)
def test_windows_start_where_the_reference_starts_them(frames: int, starts: tuple[int, int, int]) -> None:
    assert window_starts(frames, AudioSpec()) == starts


@given(st.integers(1, 5000))
def test_windows_lie_inside_the_sound(beyond: int) -> None:
    for rule in ("thirds_first", "thirds_middle", "even", "head"):
        spec = SPEC.model_copy(update={"long_audio": rule})
        assert all(0 <= start <= beyond for start in window_starts(SPEC.frames + beyond, spec))


def test_long_sound_by_each_rule() -> None:
    sound = noise(40_000)  # 248 frames
    whole = log_mel(sound[0] - sound.mean(dtype=np.float64).astype(np.float32), SPEC)
    for rule, starts in {"thirds_first": (0, 67, 133), "thirds_middle": (33, 100, 166), "even": (0, 99, 198), "head": (0, 0, 0)}.items():
        windows = mel(sound, long_audio=rule)
        for window, start in zip(windows, starts, strict=True):
            expected = (whole[start : start + 50].T - np.float32(SPEC.mean)) / np.float32(SPEC.divisor)
            assert window == pytest.approx(expected, abs=1e-4)


@pytest.mark.parametrize("rule", ["thirds_first", "thirds_middle", "even", "head"])
@pytest.mark.parametrize("beyond", [1, 2, 30, 99, 101, 700])
def test_windows_that_share_frames_are_those_of_their_own_samples(rule: str, beyond: int) -> None:
    spec = SPEC.model_copy(update={"long_audio": rule})
    samples = noise(400 + 160 * (spec.frames + beyond - 1))[0]
    centred = samples - samples.mean(dtype=np.float64).astype(np.float32)
    alone = [
        log_mel(centred[160 * start :][: 400 + 160 * (spec.frames - 1)], spec).T for start in window_starts(spec.frames + beyond, spec)
    ]
    expected = (np.stack(alone) - np.float32(spec.mean)) / np.float32(spec.divisor)
    assert np.abs(mel(samples, long_audio=rule) - expected).max() < 1e-5


def test_as_many_windows_as_the_spec_says() -> None:
    spec = AudioSpec(frames=50, windows=4, long_audio="even")
    assert window_starts(250, spec) == (0, 67, 133, 200)
    assert mel(noise(40_000), windows=5, long_audio="thirds_middle").shape[0] == 5
    assert len({window.tobytes() for window in mel(noise(1600), windows=4)}) == 1  # a short sound is the same in all of them


def test_another_filter_bank() -> None:
    """Magnitudes, no pre-emphasis, an offset under the logarithm: checked against the formula, frame by frame."""
    sound = noise(2000)[0] + np.float32(0.05)
    plain = {"preemphasis": 0.0, "frame_mean": "kept", "spectrum": "magnitude", "log_offset": 0.001}
    spec = SPEC.model_copy(update={"low_hz": 125.0, "high_hz": 7500.0, **plain})
    window = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(400) / 399)
    mels = 1127 * np.log1p(np.array([125.0, 7500.0]) / 700)
    edges = np.linspace(*mels, spec.mel_bins + 2)
    bins = 1127 * np.log1p(np.arange(257) * 16_000 / 512 / 700)
    triangles = np.stack([np.interp(bins, edges[band : band + 3], [0, 1, 0]) for band in range(spec.mel_bins)], axis=1)
    triangles[256] = 0
    frames = np.stack([sound[start : start + 400] * window for start in range(0, len(sound) - 399, 160)])
    expected = np.log(np.abs(np.fft.rfft(frames, n=512, axis=1)) @ triangles + 0.001)
    assert log_mel(sound, spec) == pytest.approx(expected, abs=1e-3)


def test_short_sound_repeats_the_mel_picture() -> None:
    tensor = mel(noise(16 * 10 * 19 + 400))  # 20 frames
    assert np.array_equal(tensor[0], tensor[2])
    assert np.array_equal(tensor[:, :, :20], tensor[:, :, 20:40])
    assert np.array_equal(tensor[:, :, :10], tensor[:, :, 40:])


def test_short_sound_repeats_whole_times_then_zeros() -> None:
    tensor = mel(noise(3_000), short_audio="repeat_pad")  # 8240 samples are wanted: twice 3000, then silence
    silence = (np.log(np.finfo(np.float32).eps) - SPEC.mean) / SPEC.divisor
    assert tensor[0, :, 38:] == pytest.approx(silence, abs=1e-5)  # frame 38 begins at sample 6080
    assert (tensor[0, :, :37].mean(axis=0) > silence + 0.2).all()


def test_exactly_the_length_is_taken_as_it_is_by_both_rules() -> None:
    sound = noise(49 * 160 + 400)
    assert np.array_equal(mel(sound), mel(sound, short_audio="repeat_pad"))


def test_channels_are_the_first_or_their_mean() -> None:
    stereo = np.stack([np.zeros(9000, np.float32), noise(9000)[0]])
    assert np.ptp(mel(stereo, audio_channels="first")) < 1e-6  # a silent left channel is silence, as in the reference
    assert mel(stereo, audio_channels="mean") == pytest.approx(mel(stereo.mean(axis=0)), abs=1e-5)


def test_too_short_is_padded_or_refused() -> None:
    assert np.isfinite(mel(noise(399))).all()
    assert np.isfinite(mel(noise(1))).all()
    assert mel(noise(400), too_short="reject").shape == (3, 40, 50)
    with pytest.raises(UnreadableMedia, match=r"24\.9 ms"):
        mel(noise(399), too_short="reject")


@pytest.mark.parametrize("fields", [{"low_hz": 200.0}, {"high_hz": 4000.0}, {"mean": 0.0}, {"divisor": 2.0}, {"resampler": "soxr"}])
def test_each_field_changes_the_tensor(fields: dict[str, object]) -> None:
    sound = noise(44_100)
    assert not np.array_equal(mel(sound, 44_100, **fields), mel(sound, 44_100))


def test_both_resamplers_hear_the_same_sound() -> None:
    # A rising tone; without its last 5 ms, where one assumes silence after the end and the other fades.
    sound = clips.tone(44_100, 0.4)
    assert np.abs(mel(sound, 44_100) - mel(sound, 44_100, resampler="soxr"))[:, 3:20, :30].mean() < 0.02


def test_other_model_rates_scale_the_frame() -> None:
    assert frame_count(32_000, SPEC.model_copy(update={"sample_rate": 32_000})) == frame_count(16_000, SPEC) == 98


def test_silence_is_the_floor() -> None:
    assert mel(np.zeros(16_000), mel_bins=112) == pytest.approx(-1.277594, abs=1e-6)


def test_the_caller_keeps_its_samples() -> None:
    sound = noise(9000, channels=2) + 0.1
    kept = sound.copy()
    prepare_audio(Waveform(sound, 16_000), SPEC)
    assert np.array_equal(sound, kept)
