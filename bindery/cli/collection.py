"""`bindery collection`: what a collection is, out to open files, and back in."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from bindery.cli.console import complain, exit_code
from bindery.cli.options import DataDir, settings_of
from bindery.errors import BinderyError, UnknownCollection

if TYPE_CHECKING:
    from bindery.collections import Collection, CollectionStore

app = typer.Typer(help="Show collections; carry them out to Parquet files, and in from them.", no_args_is_help=True, rich_markup_mode=None)

Name = Annotated[str, typer.Argument(help="The collection.")]


@app.command("show", epilog="Example: bindery collection show archive")
def show(name: Name, data_dir: DataDir = None) -> None:
    """Show what a collection holds and how it is searched: tier, measured recall, sizes, for each modality."""
    from bindery.collections import open_store

    with open_store(settings_of(data_dir=data_dir), make=False) as store:
        state = store.get(name).state()
    definition = state.definition
    typer.echo(f"{definition.name}: {state.items} items in space {definition.space} (bundle {definition.bundle}), {state.backend}")
    for modality, rows in state.counts.items():
        one = state.partitions.get(modality)
        if one is None:
            typer.echo(f"  {modality}: {rows} items")
            continue
        recall = ", ".join(f"{value:.3f} by {asked}" for asked, value in one.recall.items()) or (
            "not measured" if one.segments else "exact"
        )
        typer.echo(f"  {modality}: {rows} items, {one.tier}, {one.segments} segments of {one.disk_bytes} bytes, recall {recall}")


@app.command("export", epilog="Example: bindery collection export archive --out archive-parquet")
def export(
    name: Name,
    out: Annotated[Path, typer.Option("--out", help="A folder without Parquet files in it; made when it is missing.")],
    data_dir: DataDir = None,
) -> None:
    """Write every item with its vector to Parquet files of at most 100,000 rows."""
    from bindery.collections import open_store
    from bindery.collections.portable import export_collection

    settings = settings_of(data_dir=data_dir)
    with open_store(settings, make=False) as store:
        total = export_collection(store.get(name), out)
    typer.echo(f"{total} items written to {out}")


@app.command("import", epilog="Example: bindery collection import copy archive-parquet --create")
def import_(
    name: Name,
    folder: Annotated[Path, typer.Argument(help="Parquet files of an export, or clip-retrieval's img_emb/, text_emb/ and metadata/.")],
    create: Annotated[bool, typer.Option("--create", help="Make the collection when it is missing, as the files state it.")] = False,
    assume_space: Annotated[
        bool, typer.Option("--assume-space", help="Take vectors that state no space as of the collection's space.")
    ] = False,
    data_dir: DataDir = None,
) -> None:
    """Read vectors into a collection, in place of items with the same ids.

    Rows that cannot be taken are named on stderr and counted, and the others go in (exit code 3; 1 when none did).
    """
    from bindery.collections import open_store
    from bindery.collections.portable import import_collection

    def told(where: str, error: BinderyError) -> None:
        complain(error, where)

    settings = settings_of(data_dir=data_dir)
    with open_store(settings, make=create) as store:
        target = _made(store, name, folder) if create else store.get(name)
        done = import_collection(target, folder, assume_space=assume_space, complain=told)
        target.seal()  # in this process nothing comes after, in whose background it could be done
    rescaled = f"; {done.rescaled} were not of length 1" if done.rescaled else ""
    typer.echo(f"{done.read} read = {done.stored} stored + {done.superseded} superseded + {done.failed} failed{rescaled}")
    raise typer.Exit(exit_code(done.read, done.failed))


def _made(store: CollectionStore, name: str, folder: Path) -> Collection:
    from bindery.collections.portable import stated_definition

    if name in store:
        return store.get(name)
    stated = stated_definition(folder)
    if stated is None:
        raise UnknownCollection(
            f"there is no collection {name!r}, and {folder} does not state what to make: "
            "make it first, with `bindery index` or POST /v1/collections"
        )
    return store.create(name, space=stated.space, dimension=stated.dimension, bundle=stated.bundle, fields=stated.fields)
