"""Sniff: the media type of a file by its first bytes. Names and declared types are never trusted."""

from __future__ import annotations

from collections.abc import Collection

from bindery.errors import EmptyMedia, UnsupportedMedia
from bindery.media.source import Source

HEAD_BYTES = 4096

_MAGIC: tuple[tuple[int, bytes, str], ...] = (
    (0, b"\x89PNG\r\n\x1a\n", "image/png"),
    (0, b"\xff\xd8\xff", "image/jpeg"),
    (0, b"GIF87a", "image/gif"),
    (0, b"GIF89a", "image/gif"),
    (0, b"II*\0", "image/tiff"),
    (0, b"MM\0*", "image/tiff"),
    (0, b"II+\0", "image/tiff"),  # BigTIFF
    (0, b"MM\0+", "image/tiff"),
    (0, b"v/1\x01", "image/x-exr"),
    (0, b"\x93NUMPY", "application/x-npy"),
    (0, b"fLaC", "audio/flac"),
    (0, b"ID3", "audio/mpeg"),
    (0, b"FLV\x01", "video/x-flv"),
    (0, b"\x30\x26\xb2\x75\x8e\x66\xcf\x11", "video/x-ms-asf"),
    (0, b"\0\0\x01\xba", "video/mpeg"),
    (0, b"%PDF-", "application/pdf"),
    (0, b"PK\x03\x04", "application/zip"),
    (0, b"\x1f\x8b", "application/gzip"),
    (0, b"#EXTM3U", "application/vnd.apple.mpegurl"),
    (0, b"ffconcat", "text/x-ffconcat"),
    (0, b"\x7fELF", "application/x-executable"),
)
_RIFF = {b"WAVE": "audio/wav", b"AVI ": "video/x-msvideo", b"WEBP": "image/webp"}
_FTYP = {
    b"M4A ": "audio/mp4",
    b"M4B ": "audio/mp4",
    b"qt  ": "video/quicktime",
    b"avif": "image/avif",
    b"heic": "image/heic",
    b"mif1": "image/heif",
}
_MOV_ATOMS = frozenset({b"moov", b"mdat", b"wide", b"free", b"skip", b"pnot"})  # QuickTime files older than `ftyp`


def sniff(head: bytes) -> str | None:
    """The media type that the first bytes show, e.g. ``image/png``, or None. Some hundred bytes are enough; 4096 are best."""
    for offset, magic, media_type in _MAGIC:
        if head[offset : offset + len(magic)] == magic:
            return media_type
    return _riff(head) or _iso_media(head) or _matroska(head) or _ogg(head) or _bitmap(head) or _mpeg(head) or _text(head)


def require_type(source: Source, accepted: Collection[str], kind: str) -> str:
    """The sniffed media type of a source that is one of ``accepted``. Raises `EmptyMedia`, `UnsupportedMedia`."""
    if source.size_bytes == 0:
        raise EmptyMedia(f"{source.name} is empty (0 bytes)")
    found = sniff(source.head(HEAD_BYTES))
    if found is None or found not in accepted:
        looks = f"looks like {found}" if found else "is of no known format"
        raise UnsupportedMedia(f"{source.name} {looks} by its first bytes; {kind} takes {', '.join(accepted)}")
    return found


def _riff(head: bytes) -> str | None:
    if head[:4] in (b"RIFF", b"RF64", b"RIFX"):
        return _RIFF.get(head[8:12])
    if head[:4] == b"FORM" and head[8:12] in (b"AIFF", b"AIFC"):
        return "audio/aiff"
    return None


def _iso_media(head: bytes) -> str | None:
    if head[4:8] == b"ftyp":
        return _FTYP.get(head[8:12], "video/mp4")
    return "video/quicktime" if head[4:8] in _MOV_ATOMS else None


def _matroska(head: bytes) -> str | None:
    if head[:4] != b"\x1a\x45\xdf\xa3":
        return None
    return "video/webm" if b"webm" in head[:64] else "video/x-matroska"


def _ogg(head: bytes) -> str | None:
    if head[:4] != b"OggS":
        return None
    return "video/ogg" if b"theora" in head[:512] else "audio/ogg"


def _bitmap(head: bytes) -> str | None:
    # "BM" alone is too weak a sign: the reserved words must be zero too.
    return "image/bmp" if head[:2] == b"BM" and head[6:10] == b"\0\0\0\0" else None


def _mpeg(head: bytes) -> str | None:
    if len(head) > 188 and head[0] == 0x47 and head[188] == 0x47:
        return "video/mp2t"
    if len(head) < 4 or head[0] != 0xFF:
        return None
    if head[1] & 0xF6 == 0xF0:  # twelve sync bits, layer 00
        return "audio/aac"
    layer, bitrate, rate = head[1] >> 1 & 3, head[2] >> 4, head[2] >> 2 & 3
    is_frame = head[1] & 0xE0 == 0xE0 and head[1] >> 3 & 3 != 1 and layer and bitrate not in (0, 15) and rate != 3
    return "audio/mpeg" if is_frame else None


def _text(head: bytes) -> str | None:
    if not head or any(byte < 32 and byte not in b"\t\n\r\f\x1b" for byte in head):
        return None
    try:
        text = head[: len(head) - 4 if len(head) >= HEAD_BYTES else None].decode("utf-8", "strict")
    except UnicodeDecodeError:
        return None
    start = text.lstrip("\ufeff \t\r\n")[:64].lower()
    if start.startswith(("<!doctype html", "<html")):
        return "text/html"
    if start.startswith(("<?xml", "<svg")):
        return "text/xml"
    if start.startswith("#extm3u"):
        return "application/vnd.apple.mpegurl"
    return "text/x-ffconcat" if start.startswith("ffconcat") else "text/plain"
