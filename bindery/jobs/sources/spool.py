"""Bytes that lie in no file of their own, as a source: small ones in memory, larger ones in a temporary file."""

from __future__ import annotations

import errno
import fcntl
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path
from typing import Any

from bindery.errors import StorageFull
from bindery.limits import MIB
from bindery.media.source import Source

IN_MEMORY = 4 * MIB  # beyond it the decoders are handed a file: a medium that is cut is read once for each of its clips
_PREFIX = "bindery-spool-"


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
    _sweep(tempfile.gettempdir())
    with tempfile.NamedTemporaryFile(prefix=_PREFIX) as file:
        fcntl.flock(file, fcntl.LOCK_EX)  # until it is closed, or this process dies: what is not held is nobody's
        for piece in held:
            _write(file, piece)
        held.clear()
        for piece in rest:
            _write(file, piece)
        file.flush()
        yield Source(name, path=Path(file.name))


def _write(file: Any, piece: bytes) -> None:
    try:
        file.write(piece)
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        raise StorageFull(
            f"no space left in {tempfile.gettempdir()} for a file of the source; free some, and go on with the job"
        ) from error


@cache  # once for each folder and process
def _sweep(folder: str) -> None:
    """Remove what killed processes left."""
    for path in Path(folder).glob(f"{_PREFIX}*"):
        with suppress(OSError), path.open("rb") as file:  # gone meanwhile, another user's, or held by one that lives
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            path.unlink()
