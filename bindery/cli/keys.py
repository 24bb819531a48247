"""`bindery keys`: make an API key, list those of a file, or hash one that you brought."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from bindery.cli.console import note, print_table
from bindery.cli.options import settings_of, validated
from bindery.errors import InvalidParameter

app = typer.Typer(help="Make and list API keys.", no_args_is_help=True, rich_markup_mode=None)

File = Annotated[Path | None, typer.Option("--file", help="The keys file [default: BINDERY_KEYS_FILE].")]
Name = Annotated[str, typer.Argument(help="Whose key it is: letters, digits, '.', '_', '-'. Logs show it.")]
Scopes = Annotated[list[str], typer.Option("--scope", help="read, write or admin. Repeatable; admin includes the others.")]
Rate = Annotated[int | None, typer.Option("--requests-per-minute", help="At most so many.")]
Inflight = Annotated[int | None, typer.Option("--inflight", help="At most so many at the same time.")]


@app.command(epilog="Example: bindery keys new archive --scope read --scope write --file keys.toml")
def new(name: Name, scope: Scopes, file: File = None, requests_per_minute: Rate = None, inflight: Inflight = None) -> None:
    """Make a key and print it, this once. Its row goes into the file, or, without one, is shown for you to store."""
    from bindery import keys

    secret = keys.new_key()
    shares = {"requests_per_minute": requests_per_minute, "inflight": inflight}
    row = validated(keys.Key, {"name": name, "sha256": keys.digest(secret), "scopes": scope, **shares})
    path = file or settings_of().keys_file
    if path is None:
        note(f"Store this row in the file that BINDERY_KEYS_FILE names:\n\n{keys.row_text(row)}")
    else:
        keys.add_key(path, row)
        note(f"Added to {path}. The key itself is kept nowhere; store it now:")
    typer.echo(secret)


@app.command("list", epilog="Example: bindery keys list --file keys.toml")
def list_keys(file: File = None) -> None:
    """List names, scopes and shares. The keys themselves are not in the file."""
    from bindery import keys

    settings = settings_of()
    path = file or settings.keys_file
    rows = [*(settings.keys if file is None else ()), *(keys.read_keys(path) if path is not None else ())]
    if path is None and not rows:
        raise InvalidParameter("there is no keys file; give --file, or set BINDERY_KEYS_FILE")
    shown = [(row.name, ", ".join(row.scopes), _bound(row.requests_per_minute), _bound(row.inflight), row.sha256[:12]) for row in rows]
    print_table(("name", "scopes", "a minute", "at once", "sha256"), shown)


@app.command("hash", epilog="Example: openssl rand -base64 32 | tee key.txt | bindery keys hash")
def hash_key() -> None:
    """Read one key from stdin and print its SHA-256, for a row of the file. Take a random one: the hash is plain."""
    from bindery import keys

    secret = sys.stdin.readline().strip()
    if len(secret) < keys.SHORTEST or not secret.isascii() or not secret.isprintable() or " " in secret:
        raise InvalidParameter(f"a key has at least {keys.SHORTEST} ASCII characters without blanks; `bindery keys new` makes a good one")
    typer.echo(keys.digest(secret))


def _bound(value: int | None) -> str:
    return "any" if value is None else str(value)
