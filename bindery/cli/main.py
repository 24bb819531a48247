"""The entry of `bindery`: the commands in one application, and every expected error as one line."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from bindery import __version__
from bindery.cli import bench, bundle, calibrate, classify, collection, embed, index, keys, search, serve
from bindery.cli.console import FAILED, complain
from bindery.cli.loading import begin_to_work
from bindery.errors import BinderyError

app = typer.Typer(
    name="bindery",
    help="Embeddings of text, image, video, audio, depth and thermal in one space: serve, classify, search.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
app.command("serve", epilog="Example: bindery serve --port 8080 --data-dir ./data")(serve.serve)
app.command("calibrate", epilog="Example: bindery calibrate --bundle starter --data-dir ./data")(calibrate.calibrate)
app.command("embed", epilog="Example: bindery embed --modality audio dog.wav rain.flac --out vectors.npy")(embed.embed)
app.command("classify", epilog='Example: bindery classify --modality audio dog.wav --label "dog barking" --label rain')(classify.classify)
app.command("index", epilog='Example: bindery index ./media --collection archive --rule "depth/**=depth"')(index.index)
app.command("search", epilog='Example: bindery search --collection archive "a dog barking" --top-k 5')(search.search)
app.add_typer(bench.app, name="bench")
app.add_typer(bundle.app, name="bundle")
app.add_typer(collection.app, name="collection")
app.add_typer(keys.app, name="keys")


def _show_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"bindery {__version__}")
        raise typer.Exit


@app.callback()
def begin(
    version: Annotated[bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Show the version and exit.")] = False,
) -> None:
    """Embeddings of text, image, video, audio, depth and thermal in one space: serve, classify, search."""
    del version  # told, and the command ended, before this is called
    begin_to_work()


def main() -> None:
    try:
        app()
    except BinderyError as error:
        complain(error)
        sys.exit(FAILED)


if __name__ == "__main__":
    main()
