"""Twenty files from no data set of the starter, and what it makes of them: made here, or taken from packages that training never saw.

python -m training.starter.own_files --bundle DIR --work DIR --out own.json

Needs flite (speech), fluidsynth with the sound font TimGM6mb (Debian: timgm6mb-soundfont), and pip for the photos that scikit-image and
scikit-learn ship (free of rights, or CC BY). None of the files is kept in the project.
"""

from __future__ import annotations

import io
import json
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import av
import numpy as np
import soundfile
import typer
from numpy.typing import NDArray
from PIL import Image

import bindery
from training.starter.made import midi_of

RATE = 16_000
SOUND_FONT = Path("/usr/share/sounds/sf2/TimGM6mb.sf2")
PHOTOS = ("scikit-image==0.26.0", "scikit-learn==1.9.1")

NOISES = ("a person speaking", "a siren", "a clock ticking", "a dog barking", "rain", "a vacuum cleaner")
MUSIC = ("a piano", "a violin", "a church organ", "a trumpet", "drums", "a flute")
ROOMS = ("corridor", "staircase", "kitchen", "bathroom", "street")
FROM_ABOVE = ("people", "cars", "a bicycle", "buildings", "empty ground")


@dataclass(frozen=True, slots=True)
class OwnFile:
    """``right`` is one of ``labels``, which are what a person might try."""

    name: str
    made: str
    modality: str
    labels: tuple[str, ...]
    right: str
    data: bytes
    options: Mapping[str, Any]


def own_files(photos: Mapping[str, bytes]) -> Iterator[OwnFile]:
    """All twenty, the same each time. ``photos``: file name → its bytes, of the two packages."""
    rng = np.random.default_rng(20)
    yield _sound(
        "speech.wav", "flite, the voice slt", NOISES, "a person speaking", _speech("The train to the coast leaves at nine in the morning.")
    )
    yield _sound("siren.wav", "a tone that sweeps up and down", NOISES, "a siren", _siren())
    yield _sound("clock.wav", "two clicks a second", NOISES, "a clock ticking", _ticking(rng))
    for program, right in ((0, "a piano"), (40, "a violin"), (19, "a church organ"), (56, "a trumpet"), (-1, "drums")):
        sound = _played(midi_of([program], np.random.default_rng(program + 1)))
        yield _sound(f"{right.split()[-1]}.wav", "fluidsynth, TimGM6mb", MUSIC, right, sound)
    for name, right, *others in (
        ("chelsea.png", "a cat", "a dog", "a rabbit", "a tiger", "a horse"),
        ("coffee.png", "a cup of coffee", "a bowl of soup", "a bottle", "a candle", "a cake"),
        ("rocket.jpg", "a rocket", "an airplane", "a lighthouse", "fireworks", "a crane"),
        ("motorcycle_left.png", "a motorbike", "a bicycle", "a car", "a kitchen", "a wheelchair"),
        ("china.jpg", "a temple", "a castle", "a skyscraper", "a bridge", "a stadium"),
        ("flower.jpg", "a flower", "a tree", "a butterfly", "fruit", "a fish"),
    ):
        yield OwnFile(name, "photo", "image", (right, *others), right, photos[name], {})
    yield from made_files(rng)
    cat = ("a cat", "a kitchen", "a street", "a person signing", "a bedroom")
    yield OwnFile("cat-zoom.mp4", "camera moves into the photo", "video", cat, "a cat", _clip(photos["chelsea.png"], zoom=True), {})
    sky = ("a flower", "a bathroom", "a street", "a person signing", "a library")
    yield OwnFile("flower-pan.mp4", "camera moves over the photo", "video", sky, "a flower", _clip(photos["flower.jpg"], zoom=False), {})


def made_files(rng: np.random.Generator) -> Iterator[OwnFile]:
    """Those that need no other program and no photo."""
    yield _depth("corridor.png", ROOMS, "corridor", _corridor())
    yield _depth("staircase.png", ROOMS, "staircase", _staircase())
    yield OwnFile("walkers.png", "drawn: small warm spots", "thermal", FROM_ABOVE, "people", _warm(rng, (5, 11), 14), {})
    yield OwnFile("parking.png", "drawn: rows of warm boxes", "thermal", FROM_ABOVE, "cars", _warm(rng, (44, 20), 9), {})


def ask(bundle: str, files: Iterator[OwnFile]) -> list[dict[str, Any]]:
    """What the bundle answers to each file: the two best labels with their probabilities, and whether the first is the right one."""
    model, answers = bindery.load(bundle, device="cpu"), []
    for file in files:
        chances = model.classify(file.modality, file.data, file.labels, **file.options)[0]  # (labels,)
        first, second = np.argsort(-chances, kind="stable")[:2]
        stated = model.bundle.modality(file.modality).min_similarity is not None
        answers.append(
            {
                "file": file.name,
                "made": file.made,
                "modality": file.modality,
                "labels": file.labels,
                "right": file.right,
                "best": [{"label": file.labels[at], "probability": round(float(chances[at]), 2)} for at in (first, second)],
                "hit": file.labels[first] == file.right,
                "unknown": bool(model.unknown(file.modality, file.data, file.labels, **file.options)[0]) if stated else None,
            }
        )
    return answers


def photos_of_packages(work: Path) -> dict[str, bytes]:
    """The pictures inside the wheels of `PHOTOS`, by file name."""
    wheels = work / "wheels"
    subprocess.run(
        [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-deps", "--dest", wheels, *PHOTOS],
        check=True,
    )
    found: dict[str, bytes] = {}
    for wheel in sorted(wheels.glob("*.whl")):
        with zipfile.ZipFile(wheel) as parts:
            found |= {Path(name).name: parts.read(name) for name in parts.namelist() if name.endswith((".png", ".jpg"))}
    return found


def _sound(name: str, made: str, labels: tuple[str, ...], right: str, sound: NDArray[Any]) -> OwnFile:
    file = io.BytesIO()
    soundfile.write(file, sound / max(1e-9, float(np.abs(sound).max())) * 0.5, RATE, format="WAV")
    return OwnFile(name, made, "audio", labels, right, file.getvalue(), {})


def _speech(words: str) -> NDArray[Any]:
    with tempfile.NamedTemporaryFile(suffix=".wav") as file:
        subprocess.run(["flite", "-voice", "slt", "-t", words, "-o", file.name], check=True)
        return np.asarray(soundfile.read(file.name)[0])


def _played(midi: bytes) -> NDArray[Any]:
    with tempfile.NamedTemporaryFile(suffix=".mid") as file:
        file.write(midi)
        file.flush()
        command = ["fluidsynth", "-niq", "-r", str(RATE), "-O", "s16", "-T", "raw", "-F", "-", str(SOUND_FONT), file.name]
        rendered = subprocess.run(command, check=True, capture_output=True).stdout
    return np.frombuffer(rendered, dtype="<i2").reshape(-1, 2).mean(axis=1)


def _siren() -> NDArray[Any]:
    t = np.arange(5 * RATE) / RATE
    pitch = 900 + 350 * np.sin(2 * np.pi * 0.5 * t)
    phase = 2 * np.pi * np.cumsum(pitch) / RATE
    return np.asarray(np.sin(phase) + 0.4 * np.sin(2 * phase) + 0.2 * np.sin(3 * phase))


def _ticking(rng: np.random.Generator) -> NDArray[Any]:
    sound = 0.002 * rng.standard_normal(5 * RATE)
    click = rng.standard_normal(400) * np.exp(-np.arange(400) / 60)
    for start in range(0, 5 * RATE - 400, RATE // 2):
        sound[start : start + 400] += click
    return sound


def _depth(name: str, labels: tuple[str, ...], right: str, metres: NDArray[Any]) -> OwnFile:
    file = io.BytesIO()
    Image.fromarray(np.round(metres * 1000).astype(np.uint16)).save(file, format="PNG")
    return OwnFile(name, "rendered", "depth", labels, right, file.getvalue(), {"depth_unit": "mm"})


def _rays(height: int = 240, width: int = 320) -> tuple[NDArray[Any], NDArray[Any]]:
    """Of a camera that looks level: how far a ray goes right and down for each metre ahead, ``(height, width)`` each."""
    down, right = np.mgrid[0:height, 0:width]
    return (right - width / 2) / (0.8 * width), (down - height / 2) / (0.8 * width)


def _corridor() -> NDArray[Any]:
    """2 m wide, eye at 1.5 m of 2.6 m, its end 9 m away: metres ``(240, 320)``."""
    right, down = _rays()
    walls = 1.0 / np.maximum(np.abs(right), 1e-6)
    level = np.where(down > 0, 1.5, 1.1) / np.maximum(np.abs(down), 1e-6)
    return np.asarray(np.minimum(np.minimum(walls, level), 9.0))


def _staircase() -> NDArray[Any]:
    """Twelve steps up, 0.17 m high and 0.28 m deep, between walls 1.4 m apart."""
    right, down = _rays()
    nearest = np.minimum(0.7 / np.maximum(np.abs(right), 1e-6), 6.0)
    nearest = np.minimum(nearest, np.where(down > 0, 1.5 / np.maximum(down, 1e-6), 6.0))
    for step in range(12):
        ahead, low = 1.5 + 0.28 * step, -1.5 + 0.17 * step
        up = -down * ahead  # where the ray meets the riser's plane, metres above the eye
        nearest = np.where((up >= low) & (up <= low + 0.17), np.minimum(nearest, ahead), nearest)
    return np.asarray(nearest)


def _warm(rng: np.random.Generator, size: tuple[int, int], count: int) -> bytes:
    """Warm boxes of ``size`` (width, height) on cool ground, seen from above."""
    picture = 60 + 6 * rng.standard_normal((512, 640))
    width, height = size
    for number in range(count):
        top = int(rng.integers(20, 480 - height)) if width < height else 120 + 130 * (number // 3)
        left = int(rng.integers(20, 620 - width)) if width < height else 120 + 160 * (number % 3)
        picture[top : top + height, left : left + width] = 190 + 8 * rng.standard_normal((height, width))
    file = io.BytesIO()
    Image.fromarray(np.clip(picture, 0, 255).astype(np.uint8)).save(file, format="PNG")
    return file.getvalue()


def _clip(photo: bytes, *, zoom: bool, frames: int = 48) -> bytes:
    """Two seconds in which a camera moves into a photo, or over it from left to right."""
    picture = Image.open(io.BytesIO(photo)).convert("RGB")
    file = io.BytesIO()
    with av.open(file, "w", format="mp4") as container:
        stream = container.add_stream("libx264", rate=24)
        stream.width, stream.height, stream.pix_fmt = 320, 240, "yuv420p"
        for number in range(frames):
            at = number / (frames - 1)
            share = 1 - 0.4 * at if zoom else 0.7
            width, height = picture.width * share, picture.height * share
            left = (picture.width - width) * (0.5 if zoom else at)
            top = (picture.height - height) / 2
            view = picture.resize((320, 240), Image.Resampling.BICUBIC, box=(left, top, left + width, top + height))
            for packet in stream.encode(av.VideoFrame.from_image(view)):
                container.mux(packet)
        for packet in stream.encode():
            container.mux(packet)
    return file.getvalue()


def command(
    bundle: Annotated[str, typer.Option(help="the bundle that is asked: its name or directory")],
    work: Annotated[Path, typer.Option(help="working directory, for the two wheels")],
    out: Annotated[Path, typer.Option(help="JSON file to write")],
) -> None:
    """Make the twenty files, ask the bundle, write down what it said."""
    answers = ask(bundle, own_files(photos_of_packages(work)))
    out.write_text(json.dumps(answers, indent=1) + "\n", encoding="utf-8")
    typer.echo(f"{sum(one['hit'] for one in answers)} of {len(answers)} right")


if __name__ == "__main__":
    typer.run(command)
