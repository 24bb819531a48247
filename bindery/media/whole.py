"""Whole or cut off? Containers that state their own length are held to it, since decoders make do with what is there."""

from __future__ import annotations

import struct
from typing import BinaryIO

from bindery.errors import UnreadableMedia
from bindery.media.source import Source

_SEGMENT = b"\x18\x53\x80\x67"
_MATROSKA_TYPES = ("video/webm", "video/x-matroska")


def check_whole(source: Source, media_type: str) -> None:
    """Raises `UnreadableMedia` when an AVI or Matroska file is shorter than its header says. Streamed files state no length and pass."""
    if media_type != "video/x-msvideo" and media_type not in _MATROSKA_TYPES:
        return
    size = source.size_bytes
    with source.open() as file:
        stated = _matroska_end(file) if media_type in _MATROSKA_TYPES else _riff_end(file)
    if stated is not None and stated > size:
        raise UnreadableMedia(f"{source.name} is cut off: its header states {stated} bytes, {size} are there")


def _riff_end(file: BinaryIO) -> int | None:
    head = file.read(12)
    length: int = struct.unpack("<I", head[4:8])[0] if len(head) == 12 else 0
    return 8 + length if 0 < length < 0x7FFFFFFF else None  # writers that never came back to fill it in leave 0 or a giant


def _matroska_end(file: BinaryIO) -> int | None:
    """Where the Segment ends: the EBML header, then the Segment's id and length."""
    file.seek(4)
    header_bytes = _vint(file)
    if header_bytes is None:
        return None
    file.seek(header_bytes, 1)
    if file.read(4) != _SEGMENT:
        return None
    segment_bytes = _vint(file)
    return None if segment_bytes is None else file.tell() + segment_bytes


def _vint(file: BinaryIO) -> int | None:
    """An EBML length: as many bytes as leading zero bits of the first one say, plus one. All ones: unknown."""
    first = file.read(1)
    if not first or first[0] == 0:
        return None
    count = 8 - first[0].bit_length()
    rest = file.read(count)
    value = int.from_bytes(bytes([first[0] & (0x7F >> count)]) + rest, "big")
    return None if len(rest) < count or value == (1 << 7 * (count + 1)) - 1 else value
