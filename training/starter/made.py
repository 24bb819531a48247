"""Sounds that need no recording: synthesised speech, rendered instruments, and a few kinds of signals. Free of other people's rights.

Needs espeak-ng, and fluidsynth with the General MIDI sound font FluidR3 (MIT; Debian: espeak-ng, fluidsynth, fluid-soundfont-gm).
"""

from __future__ import annotations

import struct
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
from numpy.typing import NDArray

from training.starter.mixing import RATE

Floats = NDArray[np.float32]

VOICES = ("en-gb", "en-us", "de", "fr-fr", "es", "it", "pt", "nl", "pl", "cs", "ru", "el", "tr", "sv", "fi", "hu", "ro", "hi")
_VARIANTS = ("", "+m1", "+m3", "+m7", "+f1", "+f2", "+f4", "+croak", "+whisper")
_SOUND_FONT = Path("/usr/share/sounds/sf2/FluidR3_GM.sf2")
_BAR_S = 5
_TICKS = 480  # of a quarter note, which lasts half a second
_DRUMS = 9  # the channel that General MIDI keeps for them


def make_sounds(out: Path, *, seed: int = 0) -> None:
    """Write all of them under ``out`` as 16 kHz WAV; what is there already stays."""
    if (out / "done").is_file():
        return
    for name, maker in (("speech", speech), ("instruments", instruments), ("signals", signals)):
        folder = out / name
        folder.mkdir(parents=True, exist_ok=True)
        for number, sound in enumerate(maker(np.random.default_rng([seed, len(name)]))):
            soundfile.write(folder / f"{number:04d}.wav", sound, RATE)
    (out / "done").touch()


def speech(rng: np.random.Generator, *, each: int = 16) -> Iterator[Floats]:
    """Numbers, which every voice can read, said by ``each`` speakers in every language."""
    for voice in VOICES:
        for _ in range(each):
            numbers = " ".join(str(rng.integers(10 ** rng.integers(1, 5))) for _ in range(rng.integers(2, 9)))
            variant = voice + str(rng.choice(_VARIANTS))
            command = ["espeak-ng", "-v", variant, "-s", str(rng.integers(110, 230)), "-p", str(rng.integers(10, 90)), "--stdout", numbers]
            said = subprocess.run(command, check=True, capture_output=True).stdout
            yield _at_rate(np.frombuffer(said[44:], dtype="<i2") / np.float32(32768), 22_050)


def instruments(rng: np.random.Generator, *, each: int = 3) -> Iterator[Floats]:
    """Bars of random notes: ``each`` for all 128 programs, and as many bars of drums as for twenty of them."""
    programs = [program for program in range(128) for _ in range(each)] + [-1] * (20 * each)
    with tempfile.NamedTemporaryFile(suffix=".mid") as file:
        file.write(midi_of(programs, rng))
        file.flush()
        command = ["fluidsynth", "-niq", "-r", str(RATE), "-O", "s16", "-T", "raw", "-F", "-", str(_SOUND_FONT), file.name]
        rendered = subprocess.run(command, check=True, capture_output=True).stdout
    sound = np.frombuffer(rendered, dtype="<i2").astype(np.float32).reshape(-1, 2).mean(axis=1) / 32768
    for number in range(len(programs)):
        yield sound[number * _BAR_S * RATE : (number + 1) * _BAR_S * RATE]


def signals(rng: np.random.Generator, *, each: int = 60) -> Iterator[Floats]:
    """Noise of several colours, clicks, sweeps, engines, calls and beeps."""
    for maker in (_noise, _clicks, _sweep, _engine, _calls, _beeps):
        for _ in range(each):
            yield _loud(maker(np.arange(int(rng.uniform(1, 5) * RATE)) / RATE, rng))


def midi_of(programs: Sequence[int], rng: np.random.Generator) -> bytes:
    """A MIDI file of one bar of random notes for each program (-1: drums)."""
    notes, waited = bytearray(), 0
    for program in programs:
        bar, waited = _bar(program, waited, rng)
        notes += bar
    notes += _variable(waited) + b"\xff\x2f\x00"
    return struct.pack(">4sIHHH", b"MThd", 6, 0, 1, _TICKS) + struct.pack(">4sI", b"MTrk", len(notes)) + bytes(notes)


def _bar(program: int, waited: int, rng: np.random.Generator) -> tuple[bytes, int]:
    """MIDI events of one bar, of a program or (-1) of drums, and the ticks that its last event leaves to the next bar."""
    channel = _DRUMS if program < 0 else 0
    length = _BAR_S * 2 * _TICKS
    events: list[tuple[int, bytes]] = [] if program < 0 else [(0, bytes([0xC0, program]))]
    centre = int(rng.integers(40, 80))
    for start in np.sort(rng.integers(0, length - _TICKS, size=rng.integers(4, 16))):
        note = int(rng.integers(35, 82) if program < 0 else np.clip(centre + rng.integers(-8, 9), 21, 108))
        stop = min(int(start) + int(rng.integers(60, 3 * _TICKS)), length - 30)
        events += [(int(start), bytes([0x90 | channel, note, int(rng.integers(50, 120))])), (stop, bytes([0x80 | channel, note, 0]))]
    out, now = bytearray(), -waited
    for tick, event in sorted(events, key=lambda pair: pair[0]):
        out += _variable(tick - now) + event
        now = tick
    return bytes(out), length - now


def _variable(number: int) -> bytes:
    """MIDI's variable-length number: seven bits a byte, the last one without the top bit."""
    parts = [number & 0x7F]
    while number := number >> 7:
        parts.append(0x80 | (number & 0x7F))
    return bytes(reversed(parts))


def _noise(t: NDArray[np.float64], rng: np.random.Generator) -> NDArray[np.float64]:
    spectrum = np.fft.rfft(rng.standard_normal(len(t)))
    hertz = np.maximum(np.fft.rfftfreq(len(t), 1 / RATE), 20)
    swell = 1 + rng.uniform(0, 1) * np.sin(2 * np.pi * rng.uniform(0.1, 4) * t)
    return np.fft.irfft(spectrum * hertz ** rng.uniform(-1.5, 0.5), n=len(t)) * swell


def _clicks(t: NDArray[np.float64], rng: np.random.Generator) -> NDArray[np.float64]:
    sound = np.zeros(len(t))
    places = (
        rng.integers(0, len(t), size=rng.integers(3, 200)) if rng.random() < 0.5 else np.arange(0, len(t), int(rng.uniform(0.08, 1) * RATE))
    )
    sound[places] = rng.uniform(0.3, 1, size=len(places))
    decay = np.exp(-np.arange(800) / rng.uniform(5, 200)) * np.sin(np.arange(800) * rng.uniform(0.1, 2.5))
    return np.convolve(sound, decay)[: len(t)]


def _sweep(t: NDArray[np.float64], rng: np.random.Generator) -> NDArray[np.float64]:
    hertz = np.geomspace(rng.uniform(80, 6000), rng.uniform(80, 6000), len(t)) * (1 + 0.1 * np.sin(2 * np.pi * rng.uniform(0, 8) * t))
    return np.sin(2 * np.pi * np.cumsum(hertz) / RATE)


def _engine(t: NDArray[np.float64], rng: np.random.Generator) -> NDArray[np.float64]:
    hertz = rng.uniform(15, 180) * (1 + rng.uniform(0, 0.4) * np.sin(2 * np.pi * rng.uniform(0.05, 1) * t))
    phase = 2 * np.pi * np.cumsum(hertz) / RATE
    tones = [np.sin(phase * order + rng.uniform(0, 6)) / order ** rng.uniform(0.3, 1.5) for order in range(1, 24)]
    return np.sum(tones, axis=0) + rng.uniform(0, 1) * rng.standard_normal(len(t))


def _calls(t: NDArray[np.float64], rng: np.random.Generator) -> NDArray[np.float64]:
    rate, bend, pitch = rng.uniform(0.8, 8), rng.uniform(0.05, 0.6), rng.uniform(300, 4500)
    place = (t * rate) % 1
    phase = 2 * np.pi * np.cumsum(pitch * (1 + bend * np.sin(np.pi * place * rng.uniform(0.5, 3)))) / RATE
    return sum(np.sin(phase * order) / order**2 for order in range(1, 5)) * np.exp(-((place - 0.3) ** 2) / rng.uniform(0.005, 0.05))


def _beeps(t: NDArray[np.float64], rng: np.random.Generator) -> NDArray[np.float64]:
    on = (t * rng.uniform(0.7, 9)) % 1 < rng.uniform(0.2, 0.8)
    pitch = np.where((t * rng.uniform(0.5, 3)) % 1 < 0.5, rng.uniform(300, 4000), rng.uniform(300, 4000))
    wave = np.sin(2 * np.pi * np.cumsum(pitch) / RATE)
    return np.where(on, np.sign(wave) if rng.random() < 0.3 else wave, 0.0)


def _loud(sound: NDArray[np.float64]) -> Floats:
    return np.asarray(0.9 * sound / np.abs(sound).max(), dtype=np.float32)


def _at_rate(sound: NDArray[Any], rate: int) -> Floats:
    import soxr

    return np.asarray(soxr.resample(sound, rate, RATE), dtype=np.float32)
