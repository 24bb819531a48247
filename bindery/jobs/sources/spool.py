"""Bytes that lie in no file of their own, as a source: small ones in memory, larger ones in a temporary file."""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from functools import cache
from io import FileIO
from itertools import chain

from bindery.disk import full_disk_told
from bindery.limits import MIB
from bindery.media.source import Source
from bindery.scratch import scratch_folder, sweep

IN_MEMORY = 4 * MIB  # beyond it the decoders are handed a file: a medium that is cut is read once for each of its clips


@contextmanager
def spooled(name: str, pieces: Iterable[bytes]) -> Iterator[Source]:
    """A source of all pieces. Raises `StorageFull` when the temporary folder is, and whatever ``pieces`` raises."""
    held: list[bytes] = []
    size = 0
    rest = iter(pieces)
    for piece in rest:
        held.append(piece)
        size += len(piece)
        if size > IN_MEMORY:
            break
    else:
        yield Source(name, data=b"".join(held))
        return
    _sweep_once(tempfile.gettempdir())
    with ExitStack() as stack:
        with _full_disk_told():
            path = stack.enter_context(scratch_folder("source")) / "bytes"
            file = stack.enter_context(path.open("wb", buffering=0))  # so that nothing is left to be written by closing it
        for piece in chain(held, rest):
            _write(file, piece)
        held.clear()
        yield Source(name, path=path)


def _write(file: FileIO, piece: bytes) -> None:
    rest = memoryview(piece)
    with _full_disk_told():
        while rest:
            rest = rest[file.write(rest) :]


def _full_disk_told() -> AbstractContextManager[None]:
    return full_disk_told(f"no space left in {tempfile.gettempdir()} for a file of the source; free some, and go on with the job")


@cache
def _sweep_once(_folder: str) -> None:
    """Once for each temporary folder and process."""
    sweep()
