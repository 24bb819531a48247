"""One upload while it comes in: in memory while it is small, on disk beyond, and gone when its request ends."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

import structlog

from bindery.errors import StorageFull
from bindery.limits import MIB
from bindery.media.source import Source

MEMORY_BYTES = MIB
WRITE_BYTES = MIB  # what is worth a hand-over to a thread

log = structlog.get_logger(__name__)


@contextmanager
def writing() -> Iterator[None]:
    """Around what writes into the temporary folder. Raises `StorageFull` when that has no room, or cannot be written for another reason."""
    try:
        yield
    except OSError as error:
        log.error("an upload cannot be written to the temporary folder", error=str(error))
        raise StorageFull("what was sent cannot be written to the temporary folder of this server; send it again later") from error


class Upload:
    """Not thread-safe, but its calls may come from different threads one after the other. They raise `StorageFull`."""

    def __init__(self, spool: Path) -> None:
        self.size = 0
        self.path: Path | None = None
        self._spool = spool
        self._memory = bytearray()
        self._file: BinaryIO | None = None

    def write(self, data: bytes | bytearray | memoryview) -> None:
        self.size += len(data)
        with writing():
            self._write(data)

    def _write(self, data: bytes | bytearray | memoryview) -> None:
        if self._file is None and self.size > MEMORY_BYTES:
            handle, path = tempfile.mkstemp(dir=self._spool)
            self._file, self.path = os.fdopen(handle, "wb"), Path(path)
            self._file.write(self._memory)
            self._memory = bytearray()
        if self._file is None:
            self._memory += data
        else:
            self._file.write(data)

    @property
    def in_memory(self) -> bytes:
        return bytes(self._memory)

    def source(self, name: str) -> Source:
        """What was written, whole; nothing more may be written."""
        if self._file is None:
            return Source(name, data=self.in_memory)
        with writing():  # what is left in the file's own buffer
            self._file.close()
        return Source(name, path=self.path)

    def discard(self) -> None:
        if self._file is not None and self.path is not None:
            with suppress(OSError):  # what cannot be written any more is not wanted any more
                self._file.close()
            self.path.unlink(missing_ok=True)
