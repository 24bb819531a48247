"""Where a page ended, as a word that a caller hands back: opaque, so that it may change."""

from __future__ import annotations

import base64
import binascii

from bindery.errors import InvalidParameter

_MARK = "after:"


def encode_cursor(place: str) -> str:
    return base64.urlsafe_b64encode(f"{_MARK}{place}".encode()).decode().rstrip("=")


def decode_cursor(cursor: str) -> str:
    """Raises `InvalidParameter` for what `encode_cursor` does not give."""
    try:
        whole = base64.urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4)).decode()
    except (ValueError, binascii.Error):
        whole = ""
    place = whole.removeprefix(_MARK)
    if not whole.startswith(_MARK) or not place or encode_cursor(place) != cursor:
        raise no_cursor()
    return place


def no_cursor() -> InvalidParameter:
    return InvalidParameter("cursor is not one that a page gave; start again without it", pointer="/cursor")
