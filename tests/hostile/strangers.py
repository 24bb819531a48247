"""What is no media at all, or media under another name: scripts that name other files, programs, archives, noise, nothing."""

from __future__ import annotations

import io
import zipfile

import numpy as np
from PIL import Image

from tests.hostile.pictures import File, zeros
from tests.hostile.videos import plain
from tests.media.clips import encoded, gradient, wav

HLS = b"#EXTM3U\n#EXT-X-TARGETDURATION:9\n#EXTINF:9,\nfile:///etc/passwd\n#EXT-X-ENDLIST\n"
CONCAT = b"ffconcat version 1.0\nfile /etc/passwd\n"
SDP = b"v=0\no=- 0 0 IN IP4 127.0.0.1\ns=x\nc=IN IP4 127.0.0.1\nt=0 0\nm=video 9999 RTP/AVP 96\na=rtpmap:96 H264/90000\n"
DASH = b'<?xml version="1.0"?><MPD xmlns="urn:mpeg:dash:schema:mpd:2011"><Period><BaseURL>http://127.0.0.1:1/</BaseURL></Period></MPD>'
SVG = b'<svg xmlns="http://www.w3.org/2000/svg"><image href="file:///etc/passwd" width="9" height="9"/></svg>'
ELF = b"\x7fELF\x02\x01\x01" + bytes(200)
PDF = b"%PDF-1.7\n1 0 obj<</Type/Catalog>>endobj\n"


def archive() -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as out:
        out.writestr("zeros", bytes(10 << 20))
    return file.getvalue()


def noise() -> bytes:
    return np.random.default_rng(1).bytes(100_000)


def hidden_playlist() -> bytes:
    """Starts as a video does; a playlist follows."""
    return b"\0\0\0\x10ftypisom\0\0\0\0" + HLS


def wrapped(head: bytes) -> bytes:
    return head + noise()


NO = "unsupported_media"
FILES: list[File] = [
    ("video", "playlist.m3u8", NO, lambda: HLS),
    ("audio", "playlist.wav", NO, lambda: HLS),
    ("video", "list.ffconcat", NO, lambda: CONCAT),
    ("video", "session.sdp", NO, lambda: SDP),
    ("video", "manifest.mpd", NO, lambda: DASH),
    ("video", "hidden-playlist.mp4", "unreadable_media", hidden_playlist),
    ("image", "drawing.svg", NO, lambda: SVG),
    ("image", "archive.png", NO, archive),
    ("depth", "archive.npz", NO, archive),
    ("image", "document.pdf", NO, lambda: PDF),
    ("thermal", "program.tiff", NO, lambda: ELF),
    ("image", "noise.jpg", NO, noise),
    ("audio", "noise.mp3", "unreadable_media", lambda: wrapped(b"ID3\x03\0\0\0\0\0\0")),
    ("video", "noise.mp4", "unreadable_media", lambda: wrapped(b"\0\0\0\x10ftypisom\0\0\0\0")),
    ("video", "noise.mkv", "unreadable_media", lambda: wrapped(b"\x1a\x45\xdf\xa3\x93\x42\x82\x88matroska")),
    ("image", "noise.png", "unreadable_media too_many_pixels", lambda: wrapped(b"\x89PNG\r\n\x1a\n")),
    ("image", "noise.webp", "unreadable_media", lambda: wrapped(b"RIFF\xff\xff\0\0WEBPVP8 ")),
    ("image", "noise.tiff", "unreadable_media", lambda: wrapped(b"II*\0\x08\0\0\0")),
    ("depth", "noise.exr", "unreadable_media", lambda: wrapped(b"v/1\x01\x02\0\0\0")),
    ("audio", "noise.ogg", "unreadable_media", lambda: wrapped(b"OggS")),
    *[(modality, "empty.bin", "empty_media", bytes) for modality in ("image", "video", "audio", "depth", "thermal")],
    *[(modality, "one-byte.bin", NO, lambda: b"x") for modality in ("image", "video", "audio")],
    *[(modality, "nulls.bin", NO, lambda: bytes(100_000)) for modality in ("image", "video", "audio", "depth")],
    ("image", "really-sound.jpg", NO, lambda: wav(bytes(3200))),
    ("audio", "really-a-picture.wav", NO, lambda: encoded(Image.fromarray(gradient()), "PNG")),
    ("image", "really-a-video.png", NO, plain),
    ("image", "really-a-jpeg.png", "ok", lambda: encoded(Image.fromarray(gradient()), "JPEG")),
    ("image", "gzip.png", NO, lambda: b"\x1f\x8b\x08\0\0\0\0\0\0\xff" + zeros(10 << 20)[2:]),
]
