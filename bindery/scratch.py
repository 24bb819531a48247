"""Temporary folders that end with their process: what one that was killed left behind, perhaps with uploads in it, the next one removes."""

from __future__ import annotations

import fcntl
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from bindery.disk import full_disk_told

_PREFIX = "bindery-scratch-"


@contextmanager
def scratch_folder(what: str) -> Iterator[Path]:
    """A folder that only this user may enter, gone with the context. It is held as long as this process lives.

    ``what`` stands in its name, for whoever looks at a full disk. Raises `StorageFull`.
    """
    while True:
        with full_disk_told(f"no space left in {tempfile.gettempdir()} for temporary files; free some"):
            path = Path(tempfile.mkdtemp(prefix=f"{_PREFIX}{what}-"))
        held = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
        fcntl.flock(held, fcntl.LOCK_EX)
        if path.exists():
            break
        os.close(held)  # another process swept it away between the two lines above
    try:
        yield path
    finally:
        shutil.rmtree(path, ignore_errors=True)
        os.close(held)


def sweep() -> None:
    """Remove the folders of this user's processes that live no more."""
    for path in Path(tempfile.gettempdir()).glob(f"{_PREFIX}*"):
        with suppress(OSError):  # gone meanwhile, another user's, or held by one that lives
            held = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
            try:
                fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
                if os.fstat(held).st_uid == os.geteuid():
                    shutil.rmtree(path, ignore_errors=True)
            finally:
                os.close(held)
