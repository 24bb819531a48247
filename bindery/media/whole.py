"""Whole or cut off? Containers that state their own length are held to it, since decoders make do with what is there."""

from __future__ import annotations

import struct
from collections.abc import Callable, Mapping
from typing import BinaryIO

from bindery.errors import UnreadableMedia
from bindery.media.source import Source

_SEGMENT = b"\x18\x53\x80\x67"
_OGG_HEAD_BYTES = 27


def check_whole(source: Source, media_type: str) -> None:
    """Raises `UnreadableMedia` when a file is shorter than its headers say. Streamed files state no length and pass."""
    stated_end = _ENDS.get(media_type)
    if stated_end is None:
        return
    size = source.size_bytes
    with source.open() as file:
        stated = stated_end(file)
    if stated is not None and stated > size:
        raise UnreadableMedia(f"{source.name} is cut off: its header states {stated} bytes, {size} are there")


def _riff_end(file: BinaryIO) -> int | None:
    head = file.read(12)
    length: int = struct.unpack("<I", head[4:8])[0] if len(head) == 12 else 0
    return 8 + length if 0 < length < 0x7FFFFFFF else None  # writers that never came back to fill it in leave 0 or a giant


def _aiff_end(file: BinaryIO) -> int | None:
    head = file.read(12)
    length: int = struct.unpack(">I", head[4:8])[0] if len(head) == 12 else 0
    return 8 + length if 0 < length < 0x7FFFFFFF else None


def _ogg_end(file: BinaryIO) -> int | None:
    """Where the last page that begins in the file ends; an Ogg file is pages in a row, each of which states its segments' lengths."""
    end = 0
    while True:
        file.seek(end)
        head = file.read(_OGG_HEAD_BYTES)
        if not head.startswith(b"OggS"):
            return end or None  # the end, or something after the sound that is not our business
        if len(head) < _OGG_HEAD_BYTES:
            return end + _OGG_HEAD_BYTES
        lengths = file.read(head[26])
        end += _OGG_HEAD_BYTES + head[26] + sum(lengths)


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


_ENDS: Mapping[str, Callable[[BinaryIO], int | None]] = {
    "video/x-msvideo": _riff_end,
    "video/webm": _matroska_end,
    "video/x-matroska": _matroska_end,
    "audio/aiff": _aiff_end,
    "audio/ogg": _ogg_end,
}
