"""A source: where the bytes of one item are, by path or in memory. It never decodes."""

from __future__ import annotations

import io
import os
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from bindery.errors import UnreadableMedia


@dataclass(frozen=True)
class Source:
    """One media file, named for messages. Exactly one of ``path`` and ``data`` is set, so it travels to other processes."""

    name: str
    path: Path | None = None
    data: bytes | None = None

    def __post_init__(self) -> None:
        if (self.path is None) == (self.data is None):
            raise ValueError("a Source has exactly one of path and data")

    @classmethod
    def of(cls, value: str | os.PathLike[str] | bytes | bytearray | memoryview | BinaryIO | Source, name: str | None = None) -> Source:
        """A source from what users have at hand: a path, bytes, or an open binary file (read to its end)."""
        if isinstance(value, Source):
            return value if name is None else cls(name, value.path, value.data)
        if isinstance(value, str | os.PathLike):
            path = Path(value)
            return cls(name or path.name, path=path)
        if isinstance(value, bytes | bytearray | memoryview):
            return cls(name or "bytes", data=bytes(value))
        if not hasattr(value, "read"):
            raise TypeError(f"{type(value).__name__} is no input; give a path, bytes, or a file open in binary mode")
        data = value.read()
        if not isinstance(data, bytes):
            raise TypeError(f"{name or value!r} is open as text; open it in binary mode")
        return cls(name or "bytes", data=data)

    @property
    def size_bytes(self) -> int:
        if self.data is not None:
            return len(self.data)
        assert self.path is not None
        try:
            return self.path.stat().st_size
        except OSError as error:
            raise UnreadableMedia(f"{self.name}: cannot be opened ({error.strerror}); check the path") from error

    def open(self) -> BinaryIO:
        """A fresh, seekable binary file at its beginning; the caller closes it. Raises `UnreadableMedia`."""
        if self.data is not None:
            return io.BytesIO(self.data)
        assert self.path is not None
        try:
            return self.path.open("rb")
        except OSError as error:
            raise UnreadableMedia(f"{self.name}: cannot be opened ({error.strerror}); check the path") from error

    def head(self, count: int) -> bytes:
        """The first ``count`` bytes, fewer when the file is shorter."""
        with self.open() as file:
            return file.read(count)
