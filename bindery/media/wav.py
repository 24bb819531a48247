"""WAV headers: what they claim, checked before libsndfile quietly makes do with what is there."""

from __future__ import annotations

import struct
from typing import BinaryIO

from bindery.errors import UnreadableMedia
from bindery.limits import Limits
from bindery.media.guard import check_seconds
from bindery.media.source import Source

_STREAMED = 0x7FFFF000  # writers to a pipe state sizes from here up, or 0: "unknown", so the file's end is the end
_MAX_CHUNKS = 64


def check_wav(source: Source, limits: Limits, *, checks_length: bool) -> None:
    """Raises `TooLong` when the header claims more than ``media_seconds``, `UnreadableMedia` when the claimed samples are not there."""
    with source.open() as file:
        claim = _claim(source.name, file, source.size_bytes)
    if claim is None:
        return
    byte_rate, block_bytes, claimed, present = claim
    if checks_length and byte_rate > 0:
        check_seconds(source.name, claimed / byte_rate, limits)
    if present + max(block_bytes, 1) < claimed:
        raise UnreadableMedia(f"{source.name} is cut off: its header claims {claimed} bytes of sound, {present} are there")


def _claim(name: str, file: BinaryIO, size: int) -> tuple[int, int, int, int] | None:
    """(bytes per second, bytes per block, bytes claimed, bytes present) of the data chunk, or None where it says nothing firm."""
    if file.read(12)[:4] != b"RIFF":  # RF64 and RIFX: libsndfile's own checks have to do
        return None
    byte_rate = block_bytes = 0
    for _ in range(_MAX_CHUNKS):
        header = file.read(8)
        if len(header) < 8:
            return None
        chunk, length = struct.unpack("<4sI", header)
        if chunk == b"data":
            is_firm = 0 < length < _STREAMED
            return (byte_rate, block_bytes, length, size - file.tell()) if is_firm else None
        if file.tell() + length > size:
            # FFmpeg, asked next, would allocate whatever such a chunk claims
            raise UnreadableMedia(f"{name} is cut off or damaged: its chunk {chunk!r} claims {length} bytes")
        body = file.read(16) if chunk == b"fmt " else b""
        if len(body) == 16:
            byte_rate, block_bytes = struct.unpack("<IH", body[8:14])
        file.seek(length + (length & 1) - len(body), 1)
    return None
