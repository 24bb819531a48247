"""Files in JSON bodies: long base64 strings are written to disk, decoded, before the rest of the body is parsed.

Whoever parses or decodes a string holds Python's lock until its end. For one of 80 MB that is a quarter of a second in which nobody else
is answered. Here it is done a slice at a time, so that others get their turn; and the file is in memory at no time but as the body.
"""

from __future__ import annotations

import binascii
import re
import secrets
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any, Literal

from bindery.errors import InvalidParameter, TooManyBytes
from bindery.limits import MIB, Limits
from bindery.media.source import Source

LEAST_BYTES = MIB
"""Of a string that is taken out; less is parsed and decoded in a few milliseconds."""
_SLICE = MIB
_LIKE_BASE64 = re.compile(rb"[A-Za-z0-9+/=\\]+")
_HEAD = re.compile(rb'data:[^",]{0,200};base64,', re.IGNORECASE)

Fault = Literal["not base64", "too long"]


class Attached:
    """What stood in a body as a long base64 string: where its bytes are now, or why they are nowhere."""

    __slots__ = ("chars", "fault", "head", "path")

    def __init__(self, path: Path, head: str, chars: int, fault: Fault | None) -> None:
        self.path = path
        self.head = head  # of a data: URI, with its comma
        self.chars = chars
        self.fault = fault

    def source(self, name: str, limits: Limits) -> Source:
        """Raises `InvalidParameter`, `TooManyBytes`."""
        if self.fault == "too long":
            raise TooManyBytes(f"{name} has more than {limits.file_bytes} bytes (limit file_bytes)")
        if self.fault is not None:
            raise InvalidParameter(f"{name} is not valid base64")
        return Source(name, path=self.path)


def detach(body: bytearray, folder: Path, limits: Limits) -> tuple[bytearray, dict[str, Attached]]:
    """The body with a word in place of each long base64 string, and what the words stand for; files are made in ``folder``.

    What is no JSON stays none: a word has letters and digits only.
    """
    word = secrets.token_hex(16)
    files: dict[str, Attached] = {}
    rest, copied = bytearray(), 0
    for start, end in _runs(body, max(LEAST_BYTES, 2 * limits.text_chars, 2 * limits.metadata_bytes)):
        head = _HEAD.match(body, start, end)
        begin = start if head is None else head.end()
        if not _is_base64_string(body, start, begin, end):
            continue
        with tempfile.NamedTemporaryFile(dir=folder, delete=False) as stream:
            fault = _decode(body, begin, end, stream, limits.file_bytes)
        name = f"{word}{len(files)}"
        files[name] = Attached(Path(stream.name), body[start:begin].decode("utf-8", "replace"), end - start, fault)
        rest += body[copied:start]
        rest += name.encode()
        copied = end
    if not files:
        return body, files
    rest += body[copied:]
    return rest, files


def attach(node: Any, files: dict[str, Attached], *, metadata: bool = False) -> Any:
    """The parsed body with `Attached` in place of the words. Raises `TooManyBytes` for one among an item's metadata."""
    if isinstance(node, dict):
        return {key: attach(value, files, metadata=metadata or key == "metadata") for key, value in node.items()}
    if isinstance(node, list):
        return [attach(value, files, metadata=metadata) for value in node]
    if not isinstance(node, str) or node not in files:
        return node
    if metadata:
        raise TooManyBytes(f"metadata holds a string of {files[node].chars} bytes, more than the limit metadata_bytes")
    return files[node]


def _runs(body: bytearray, least: int) -> Iterator[tuple[int, int]]:
    """Where ``least`` bytes or more lie between two quotes: from after the one to the other."""
    half, at = least // 2, 0
    while at + half <= len(body):  # a run as long as that covers one of these blocks whole
        if body.find(b'"', at, at + half) >= 0:
            at += half
            continue
        start, end = body.rfind(b'"', 0, at) + 1, _find_quote(body, at + half)
        if end < 0:
            return
        if start > 0 and end - start >= least:
            yield start, end
        at = end + 1


def _find_quote(body: bytearray, at: int) -> int:
    while at < len(body):
        found = body.find(b'"', at, at + _SLICE)
        if found >= 0:
            return found
        at += _SLICE
    return -1


def _is_base64_string(body: bytearray, start: int, begin: int, end: int) -> bool:
    """Whether it stands between unescaped quotes and looks like base64 at both ends: between strings there would be a comma or colon."""
    if body[start - 2 : start - 1] == b"\\" or body[end - 1 : end] == b"\\":
        return False
    return all(_LIKE_BASE64.fullmatch(body, *span) for span in ((begin, min(begin + 4096, end)), (max(begin, end - 4096), end)))


def _decode(body: bytearray, begin: int, end: int, stream: IO[bytes], most_bytes: int) -> Fault | None:
    written, rest = 0, b""
    for at in range(begin, end, _SLICE):
        piece = (rest + body[at : min(at + _SLICE, end)]).replace(b"\\/", b"/")
        is_last = at + _SLICE >= end
        whole = len(piece) if is_last else (len(piece) - piece.endswith(b"\\")) // 4 * 4
        piece, rest = piece[:whole], piece[whole:]
        try:
            data = binascii.a2b_base64(piece, strict_mode=True)
        except (binascii.Error, ValueError):
            return "not base64"
        if not is_last and len(data) != whole // 4 * 3:  # padding, and then more
            return "not base64"
        written += len(data)
        if written > most_bytes:
            return "too long"
        stream.write(data)
    return None
