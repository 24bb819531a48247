"""What the commands share in talking: exit codes, one line an error, tables, and where results go."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from bindery.errors import BinderyError, InvalidParameter

DONE, FAILED, SOME_FAILED = 0, 1, 3  # 2, wrong usage, is what the command-line library itself ends with

_PIPED_WIDTH = 200  # characters of a table that goes to a file or a pipe, where there is no window to ask


def complain(error: BinderyError, name: str | None = None) -> None:
    """One line on stderr: ``error[code]: what was wrong``, with the item's name in front when it is not in the text."""
    where = f"{name}: " if name and Path(name).name not in error.detail else ""
    line = " ".join(f"{where}{error.detail}".splitlines())
    typer.echo(f"error[{error.code}]: {line}", err=True)


def note(text: str) -> None:
    typer.echo(text, err=True)


def progress_console() -> Console:
    return Console(stderr=True)


def exit_code(listed: int, failed: int) -> int:
    if failed == 0:
        return DONE
    return FAILED if failed == listed else SOME_FAILED


def print_json(document: object) -> None:
    typer.echo(json.dumps(document, ensure_ascii=False, indent=1))


def print_table(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """A table on stdout. Cells are shown as they are: file names are no markup."""
    table = Table(*columns, box=None, pad_edge=False)
    for row in rows:
        table.add_row(*(Text(cell) for cell in row))
    Console(width=None if sys.stdout.isatty() else _PIPED_WIDTH).print(table)


def write_bytes(data: bytes, out: Path | None) -> None:
    """To a file, or to stdout unless that is a terminal. Raises `InvalidParameter`."""
    if out is None:
        if sys.stdout.isatty():
            raise typer.BadParameter("this format is binary: give --out FILE, or send it into a file or a pipe")
        sys.stdout.buffer.write(data)
        sys.stdout.buffer.flush()
        return
    try:
        out.write_bytes(data)
    except OSError as error:
        raise InvalidParameter(f"{out} cannot be written: {error.strerror}") from error
