"""The audio tower's lessons: log-mel patches of sounds and their mixtures, with what YAMNet makes of each.

python -m training.starter.pool --media DIR --out DIR       # a manifest, patches.npy, and a file for each kind of lesson
"""

from __future__ import annotations

import csv
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import soundfile
import typer
from numpy.lib.format import open_memmap
from numpy.typing import NDArray

from bindery.decoded import Waveform
from bindery.limits import Limits
from bindery.media.audio import decode_waveform
from bindery.prepare.audio import prepare_audio
from bindery.prepare.resample import soxr_hq
from bindery.spec import AudioSpec
from training.cli import console
from training.data.manifest import Item, read_manifest, without_licences
from training.data.shards import Files
from training.feed import split_off
from training.recipe import read_recipe
from training.starter.made import make_sounds
from training.starter.mixing import RATE, mix
from training.starter.yamnet import SILENCE, Yamnet, class_names, said_in_text
from training.text import PackageText
from training.towers.package import load_tower

Floats = NDArray[np.float32]

RECIPE = Path(__file__).parent.parent / "recipes" / "starter" / "hearing.toml"
COLUMNS = ("id", "split", "shard", "path", "label", "captions", "source", "licence", "attribution", "weight")
ASIDE = 0.1
_CAPTIONED_SHARE = 0.6
_QUIET = 0.4
"""Score of silence above which a patch is not said to hold what its sound is called."""


@dataclass(frozen=True, slots=True)
class Sound:
    """A sound at 16 kHz; ``item``: what is said of it, None where nothing is."""

    samples: Floats
    item: Item | None


class Lessons:
    """Arrays that are written row by row: the patches, and the teacher's scores, features and words for each."""

    def __init__(self, out: Path, count: int, shape: tuple[int, ...], classes: int, dimension: int) -> None:
        shapes = {"patches": shape, "scores": (classes,), "features": (1024,), "words": (dimension,)}
        self._arrays: dict[str, Any] = {
            name: open_memmap(out / f"{name}.npy", mode="w+", dtype=np.float16, shape=(count, *rest)) for name, rest in shapes.items()
        }
        self.rows = 0

    def add(self, **parts: Floats) -> int:
        """Returns the number of the first row."""
        first, self.rows = self.rows, self.rows + len(parts["patches"])
        for name, rows in parts.items():
            self._arrays[name][first : self.rows] = rows
        return first

    def close(self) -> None:
        for array in self._arrays.values():
            array.flush()


def command(
    media: Annotated[Path, typer.Option(help="the starter's media: audio/manifest.csv, and the teacher in teachers/")],
    out: Annotated[Path, typer.Option(help="directory to write into")],
    text: Annotated[Path, typer.Option(help="package of the text tower")],
    sounds: Annotated[list[Path] | None, typer.Option(help="further directories of sounds, without words; may be repeated")] = None,
    clips: Annotated[int, typer.Option(help="mixtures of five seconds, ten patches each")] = 30_000,
    seed: Annotated[int, typer.Option(help="of the draws")] = 0,
) -> None:
    """Make the sounds, mix them, and ask the teacher."""
    out.mkdir(parents=True, exist_ok=True)
    recipe = read_recipe(RECIPE)
    assert isinstance(recipe.spec, AudioSpec)
    teacher = Yamnet(media / "teachers" / "yamnet_spectra_in.tflite")
    names = class_names(media / "teachers" / "yamnet_class_map.csv")
    classes = [said_of(name) for name in names]
    (out / "classes.txt").write_text("".join(f"{name}\n" for name in classes), encoding="utf-8")
    vectors = PackageText(load_tower(text)).arrays(classes)
    items = without_licences(read_manifest(media / "audio" / "manifest.csv", split="train"), recipe.data.skip_licences)
    training, aside = split_off(items, ASIDE, seed)
    files = Files()
    captioned = [Sound(_decoded(item, files), item) for item in training]
    make_sounds(out / "made", seed=seed)
    others = [Sound(_read(path), None) for folder in (out / "made", *(sounds or ())) for path in sorted(folder.rglob("*.*")) if path.suffix]
    console.print(f"{len(captioned)} captioned sounds, {len(others)} others, {len(aside)} kept aside")
    _write_aside(recipe.spec, [(item, _decoded(item, files)) for item in aside], out)
    total = (clips + len(captioned)) * recipe.spec.windows
    lessons = Lessons(out, total, (1, recipe.spec.mel_bins, recipe.spec.frames), len(names), vectors.shape[1])
    with (out / "manifest.csv").open("w", encoding="utf-8", newline="") as file:
        table = csv.DictWriter(file, COLUMNS)
        table.writeheader()
        table.writerows(row_of(item, "aside", "aside.npy", number) for number, item in enumerate(aside))
        for number in range(clips + len(captioned)):
            sound, item = _drawn(number, captioned, others, seed)
            if sound is None:
                continue
            windows = _windows(sound, recipe.spec)  # (windows, mel_bins, frames)
            scores, features = teacher(windows * np.float32(recipe.spec.divisor) + np.float32(recipe.spec.mean))
            first = lessons.add(
                patches=windows[:, None], scores=scores, features=features, words=said_in_text(scores, names, np.asarray(vectors))
            )
            for place, silence in enumerate(scores[:, names.index(SILENCE)]):
                said = item if silence < _QUIET else None
                table.writerow(row_of(said, "train", "patches.npy", first + place))
            if number % 1000 == 0:
                console.print(f"{number} of {clips + len(captioned)} clips")
    lessons.close()
    (out / "ids.txt").write_text("".join(f"patches-{row}\n" for row in range(total)), encoding="utf-8")


def said_of(name: str) -> str:
    """What the teacher's class is called in words."""
    return f"the sound of {name.lower()}"


def _drawn(number: int, captioned: list[Sound], others: list[Sound], seed: int) -> tuple[Floats | None, Item | None]:
    """The captioned sounds as they are, then mixtures; with what may still be said of them."""
    if number < len(captioned):
        return captioned[number].samples, captioned[number].item
    rng = np.random.default_rng([seed, 5, number])
    named = rng.random() < _CAPTIONED_SHARE
    first, second = (
        sounds[rng.integers(len(sounds))] for sounds in (captioned if named else others, captioned if rng.random() < 0.5 else others)
    )
    mixture = mix(first.samples, second.samples, rng)
    if mixture is None:
        return None, None
    return mixture.samples, first.item if mixture.clear else None


def _windows(samples: Floats, spec: AudioSpec) -> Floats:
    return prepare_audio(Waveform(samples[None], RATE), spec)["pixel_values"]


def _write_aside(spec: AudioSpec, sounds: list[tuple[Item, Floats]], out: Path) -> None:
    """Whole clips, all windows of each, as they will be served."""
    np.save(out / "aside.npy", np.stack([_windows(samples, spec) for _, samples in sounds]).astype(np.float16))


def row_of(item: Item | None, split: str, shard: str, row: int) -> dict[str, Any]:
    name = {"id": f"{shard.removesuffix('.npy')}-{row}", "split": split, "shard": shard, "path": row}
    if item is None:
        return name
    said = {"label": item.label, "captions": " | ".join(item.captions)}
    return name | said | {"source": item.source, "licence": item.licence, "attribution": item.attribution}


def _decoded(item: Item, files: Files) -> Floats:
    return _one(decode_waveform(files.source(item), Limits()))


def _read(path: Path) -> Floats:
    samples, rate = soundfile.read(path, dtype="float32", always_2d=True)
    return _one(Waveform(samples.T, rate))


def _one(waveform: Waveform) -> Floats:
    return soxr_hq(np.ascontiguousarray(waveform.samples.mean(axis=0, dtype=np.float32)), waveform.rate, RATE)


if __name__ == "__main__":
    typer.run(command)
