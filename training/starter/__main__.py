"""`python -m training.starter --media DIR --work DIR`: the starter's tower packages, from nothing but two weight packages and the media.

What follows (export, measuring, the card) is in `training/starter/make.sh`, because training knows no export.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import torch
import typer

from training.assembly import Places
from training.cli import console, run_recipe
from training.data.batches import captions_of
from training.data.manifest import Item, read_manifest, without_licences
from training.objective import DistillTerm
from training.recipe import read_recipe
from training.starter.moving import make_clips
from training.starter.pool import command as make_pool
from training.starter.pool import said_of
from training.starter.weights import import_listener, import_lite0, import_minilm, import_tagger
from training.starter.yamnet import SILENCE
from training.teach import command as teach
from training.trainer import Saving

RECIPES = Path(__file__).parent.parent / "recipes" / "starter"
CLIPS = 32_000
"""Mixtures of sounds that the audio tower learns from."""
MODALITIES = ("image", "audio", "depth", "thermal", "video")


def command(
    media: Annotated[Path, typer.Option(help="directory with a folder of media and a manifest for each modality")],
    work: Annotated[Path, typer.Option(help="working directory: tower packages in towers/, features of the frozen trunk in features/")],
    only: Annotated[list[str] | None, typer.Option(help="train this modality only; may be repeated")] = None,
    threads: Annotated[int, typer.Option(help="threads of torch; weights may differ in the last bits with another number")] = 1,
) -> None:
    """Import the two published weights and follow the recipe of each modality."""
    torch.set_num_threads(threads)
    towers = work / "towers"
    import_minilm(towers / "text")
    import_lite0(towers / "imagenet")
    import_tagger(towers / "tagger", towers / "imagenet", towers / "text", media / "teachers" / "imagenet_labels.txt")
    write_captions(media, work / "captions.txt")
    lesson = towers / "tagger" / "image.npz"  # what the classifier sees in each picture: the image recipe's second teacher
    if not lesson.is_file():
        teach(bundle=str(towers), modality="tagger", manifest=media / "image" / "manifest.csv", out=lesson, key="id", device="cpu")
    if "audio" in (only or MODALITIES):
        if not (work / "pool" / "ids.txt").is_file():  # written last
            make_pool(media=media, out=work / "pool", text=towers / "text", sounds=None, clips=CLIPS, seed=0)
        saving = Saving(every=400, resume=True)
        hearing = RECIPES / "hearing.toml"
        run_recipe(hearing, Places(work / "pool", towers, towers / "hearing"), saving=saving)
        tags = next(
            number for number, term in enumerate(read_recipe(hearing).losses) if isinstance(term, DistillTerm) and term.how == "tags"
        )
        names = work / "pool" / "classes.txt"
        import_listener(towers / "listener", towers / "hearing", towers / "text", names, silent=said_of(SILENCE), layer=str(tags))
    for modality in only or MODALITIES:
        lessons = media_of(modality, media, work)
        if modality == "video":
            make_clips(media, lessons / "video", read_recipe(RECIPES / "video.toml").data.skip_licences)
        run_recipe(RECIPES / f"{modality}.toml", Places(lessons, towers, towers / modality, work / "features"))
    console.print(f"tower packages in {towers}")


def media_of(modality: str, media: Path, work: Path) -> Path:
    """What a modality's recipe calls its media: sounds are learned from mixtures of them, clips beside others that were made to move."""
    return {"audio": work / "pool", "video": work / "lessons"}.get(modality, media)


def items_of(modality: str, media: Path) -> list[Item]:
    """The media that a modality's tower is made of, those held out for calibration included."""
    data = read_recipe(RECIPES / f"{modality}.toml").data
    return without_licences(read_manifest(media / modality / "manifest.csv", split=data.split), data.skip_licences)


def write_captions(media: Path, out: Path, *, at_most: int = 400) -> None:
    """Captions of all modalities, evenly chosen, one a line: what the export measures the 8-bit text tower with."""
    captions: dict[str, None] = {}
    for modality in MODALITIES:
        templates = read_recipe(RECIPES / f"{modality}.toml").data.templates
        for item in read_manifest(media / modality / "manifest.csv", split="train"):
            captions.update(dict.fromkeys(captions_of(item, templates)))
    out.write_text("\n".join(list(captions)[:: -(-len(captions) // at_most)]) + "\n", encoding="utf-8")


if __name__ == "__main__":
    typer.run(command)
