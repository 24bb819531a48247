"""One upload while it comes in: in memory while it is small, on disk beyond, and gone when its request ends."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from typing import BinaryIO

from bindery.limits import MIB
from bindery.media.source import Source

MEMORY_BYTES = MIB
WRITE_BYTES = MIB  # what is worth a hand-over to a thread


class Upload:
    """Not thread-safe, but its calls may come from different threads one after the other."""

    def __init__(self, spool: Path) -> None:
        self.size = 0
        self.path: Path | None = None
        self._spool = spool
        self._memory = bytearray()
        self._file: BinaryIO | None = None

    def write(self, data: bytes | bytearray | memoryview) -> None:
        self.size += len(data)
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
        self._file.close()
        return Source(name, path=self.path)

    def discard(self) -> None:
        if self._file is not None and self.path is not None:
            self._file.close()
            self.path.unlink(missing_ok=True)
