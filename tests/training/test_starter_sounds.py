"""What the audio tower's lessons are made of: mixtures, signals, and a tagger's answer in text vectors."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from bindery.spec import AudioSpec
from tests.training.toyset import make_pictures
from training.data.manifest import read_manifest
from training.recipe import read_recipe
from training.starter.made import midi_of, signals
from training.starter.mixing import LENGTH, RATE, mix
from training.starter.pool import RECIPE, row_of
from training.starter.yamnet import said_in_text


def _tone(seconds: float, hertz: float = 440) -> np.ndarray:
    return np.sin(2 * np.pi * hertz * np.arange(int(seconds * RATE)) / RATE).astype(np.float32)


def test_a_mixture_is_five_seconds_and_follows_from_its_generator() -> None:
    first, second = _tone(1.5), _tone(7, 900)
    made = [mix(first, second, np.random.default_rng(seed)) for seed in range(40)]
    again = mix(first, second, np.random.default_rng(3))
    assert made[3] is not None
    assert again is not None
    assert np.array_equal(made[3].samples, again.samples)
    for mixture in made:
        assert mixture is not None
        assert mixture.samples.shape == (LENGTH,)
        assert mixture.samples.dtype == np.float32
        assert 10 ** (-24 / 20) - 1e-3 <= np.abs(mixture.samples).max() <= 1
    assert {mixture.clear for mixture in made if mixture} == {True, False}
    assert mix(np.zeros(800, np.float32), np.zeros(800, np.float32), np.random.default_rng(0)) is None


def test_a_loud_second_sound_takes_the_first_ones_name() -> None:
    """Of mixtures said to be clear, the first tone holds most of the energy; the tones lie far apart, so a spectrum tells."""
    first, second = _tone(5, 400), _tone(5, 3000)
    louder = []
    for seed in range(60):
        mixture = mix(first, second, np.random.default_rng(seed))
        assert mixture is not None
        spectrum = np.abs(np.fft.rfft(mixture.samples)) ** 2
        split = int(1100 / (RATE / LENGTH))
        louder.append((mixture.clear, bool(spectrum[:split].sum() > spectrum[split:].sum())))
    assert all(low for clear, low in louder if clear)
    assert not all(low for _, low in louder)


def test_signals_are_loud_and_follow_from_their_seed() -> None:
    made, again = (list(signals(np.random.default_rng(1), each=2)) for _ in range(2))
    assert len(made) == 12
    for one, other in zip(made, again, strict=True):
        assert np.array_equal(one, other)
        assert np.abs(one).max() == pytest.approx(0.9, abs=1e-6)
        assert RATE <= len(one) <= 5 * RATE


def test_bars_are_well_formed_midi_of_their_length() -> None:
    """Read back by the format's own rules: every note ends, and the bars last five seconds each."""
    data = midi_of([0, 40, -1], np.random.default_rng(0))
    assert data[:4] == b"MThd"
    track, now, place, open_notes = data[22:], 0, 0, set()
    while True:
        delta = 0
        while True:
            delta = delta << 7 | track[place] & 0x7F
            place += 1
            if not track[place - 1] & 0x80:
                break
        now += delta
        status = track[place]
        if status == 0xFF:
            break
        size = 2 if status & 0xF0 == 0xC0 else 3
        if status & 0xF0 == 0x90:
            open_notes.add((status & 0xF, track[place + 1]))
        elif status & 0xF0 == 0x80:
            open_notes.discard((status & 0xF, track[place + 1]))
        place += size
    assert not open_notes
    assert now == 3 * 5 * 2 * 480  # quarter notes of half a second
    assert track[place : place + 3] == b"\xff\x2f\x00"


def test_a_taggers_answer_is_as_long_as_it_is_sure_and_silence_has_no_say() -> None:
    names, vectors = ["Dog", "Silence", "Rain"], np.eye(3, dtype=np.float32)
    said = said_in_text(np.array([[0.6, 0.9, 0.0], [0.3, 0.0, 0.4]], dtype=np.float32), names, vectors)
    assert said[0] == pytest.approx([0.6, 0, 0])
    assert np.linalg.norm(said[1]) == pytest.approx(0.4)
    assert said[1] / 0.4 == pytest.approx(np.array([0.6, 0, 0.8]))


def test_rows_say_what_may_be_said(tmp_path: Path) -> None:
    item = replace(read_manifest(make_pictures(tmp_path, each=1))[0], captions=("a dog", "a bark"), licence="CC0-1.0")
    assert row_of(item, "train", "patches.npy", 7)["captions"] == "a dog | a bark"
    assert row_of(item, "train", "patches.npy", 7)["licence"] == "CC0-1.0"
    assert row_of(None, "train", "patches.npy", 7) == {"id": "patches-7", "split": "train", "shard": "patches.npy", "path": 7}


def test_both_steps_prepare_sounds_alike() -> None:
    first, second = read_recipe(RECIPE).spec, read_recipe(RECIPE.parent / "audio.toml").spec
    assert first == second
    assert isinstance(first, AudioSpec)
    assert (first.mel_bins, first.frames) == (64, 96)  # the teacher's patch
