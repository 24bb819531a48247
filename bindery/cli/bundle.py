"""`bindery bundle`: look into a bundle, or check every byte of it."""

from __future__ import annotations

from typing import Annotated

import typer

from bindery.cli.console import print_json
from bindery.cli.options import settings_of

app = typer.Typer(help="Look into a bundle, or verify it.", no_args_is_help=True, rich_markup_mode=None)
Which = Annotated[str, typer.Argument(metavar="NAME|DIR", help="A bundle's name or directory.")]


@app.command(epilog="Example: bindery bundle info starter")
def info(which: Which) -> None:
    """Print what the bundle holds, as JSON. Checks that its files are there, not what is in them."""
    from bindery.bundle import find_bundle, open_bundle

    bundle = open_bundle(find_bundle(which, settings_of().bundle_places()), checksums=False)
    manifest = bundle.manifest.model_dump(mode="json", exclude={"files"})
    sizes = [entry.bytes for entry in bundle.manifest.files.values()]
    print_json({"directory": str(bundle.root), "digest": bundle.digest, **manifest, "files": len(sizes), "bytes": sum(sizes)})


@app.command(epilog="Example: bindery bundle verify ./my-bundle")
def verify(which: Which) -> None:
    """Check the manifest and the checksum of every file; the first that is wrong is named (exit code 1)."""
    from bindery.bundle import find_bundle, open_bundle

    bundle = open_bundle(find_bundle(which, settings_of().bundle_places()))
    typer.echo(f"{bundle.root}: {bundle.name} {bundle.manifest.version}, {len(bundle.manifest.files)} files as the manifest says")
