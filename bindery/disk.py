"""What disks do: they fill up, and after a power cut they have forgotten what was not brought to them."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from bindery.errors import StorageFull


@contextmanager
def full_disk_told(detail: str) -> Iterator[None]:
    """Around what writes. An `OSError` that says there is no room becomes `StorageFull` with this detail; others stay."""
    try:
        yield
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        raise StorageFull(detail) from error


def to_disk(path: Path) -> None:
    """Bring a file's content, or a folder's list of names, to the disk: a power cut after this does not undo it."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
