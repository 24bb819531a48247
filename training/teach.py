"""A teacher's vectors for the items of a manifest, for `[[losses]]` of kind `distill`.

python -m training.teach --bundle starter --modality image --manifest image/manifest.csv --out teacher.npz
python -m training.teach --bundle runs/starter/towers --modality tagger --manifest image/manifest.csv --out teacher.npz
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import numpy as np
import typer
from rich.console import Console

from bindery.errors import BinderyError
from training.data.manifest import ManifestError, read_manifest
from training.data.shards import Files
from training.distill import Key
from training.evaluation.encoders import open_encoder_of
from training.evaluation.task import TaskError
from training.towers.package import TowerPackageError

_CHUNK = 64

app = typer.Typer(add_completion=False)


@app.command()
def command(
    bundle: Annotated[str, typer.Option(help="the teacher: a bundle's name or directory, or a directory of tower packages")],
    modality: Annotated[str, typer.Option(help="which of its modalities (or packages) sees the items")],
    manifest: Annotated[Path, typer.Option(help="manifest of what the teacher sees")],
    out: Annotated[Path, typer.Option(help=".npz to write: ids and vectors")],
    key: Annotated[Key, typer.Option(help="id, or pair_id: name the vectors by the pair, for a student of another modality")] = "id",
    device: Annotated[Literal["auto", "cpu", "cuda"], typer.Option(help="where the teacher runs")] = "auto",
) -> None:
    """Embed every item of a manifest with a bundle; unreadable ones are left out and counted."""
    console = Console(stderr=True)
    try:
        teacher = open_encoder_of(bundle, device=device)
        if modality not in teacher.modalities:
            raise TaskError(f"{bundle} has no {modality}; it has {', '.join(teacher.modalities)}")
        items = [item for item in read_manifest(manifest) if getattr(item, key)]
        files = Files()
        vectors: dict[str, np.ndarray] = {}
        for start in range(0, len(items), _CHUNK):
            chunk = items[start : start + _CHUNK]
            for item, vector in zip(chunk, teacher.files(modality, [files.source(item) for item in chunk], {}), strict=True):
                if not isinstance(vector, BinderyError):
                    vectors.setdefault(str(getattr(item, key)), vector)
    except (BinderyError, ManifestError, TaskError, TowerPackageError) as error:
        console.print(f"error: {error}", markup=False)
        raise typer.Exit(2) from error
    if not vectors:
        console.print(f"error: {manifest} has no readable item with a {key}", markup=False)
        raise typer.Exit(2)
    np.savez(out, ids=np.array(list(vectors)), vectors=np.stack(list(vectors.values())))
    console.print(f"{out}: {len(vectors)} vectors of {len(items)} items")


if __name__ == "__main__":
    app()
