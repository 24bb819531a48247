from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from bindery.errors import EmptyMedia, UnsupportedMedia
from bindery.media.sniff import require_type, sniff
from bindery.media.source import Source
from tests.media import clips


@pytest.mark.parametrize(
    ("file_format", "media_type"),
    [
        ("PNG", "image/png"),
        ("JPEG", "image/jpeg"),
        ("WEBP", "image/webp"),
        ("GIF", "image/gif"),
        ("TIFF", "image/tiff"),
        ("BMP", "image/bmp"),
    ],
)
def test_pictures_are_known_by_content(file_format: str, media_type: str) -> None:
    assert sniff(clips.encoded(Image.fromarray(clips.gradient()), file_format)) == media_type


@pytest.mark.parametrize(
    ("codec", "container", "media_type"),
    [
        ("pcm_s16le", "wav", "audio/wav"),
        ("flac", "flac", "audio/flac"),
        ("libmp3lame", "mp3", "audio/mpeg"),
        ("libopus", "ogg", "audio/ogg"),
        ("aac", "ipod", "audio/mp4"),
        ("aac", "adts", "audio/aac"),
        ("libopus", "webm", "video/webm"),
    ],
)
def test_sounds_are_known_by_content(codec: str, container: str, media_type: str) -> None:
    assert sniff(clips.sound(codec, container, clips.tone(48_000, 0.2), 48_000)) == media_type


@pytest.mark.parametrize(
    ("container", "media_type"),
    [("mp4", "video/mp4"), ("mov", "video/quicktime"), ("matroska", "video/x-matroska"), ("avi", "video/x-msvideo")],
)
def test_videos_are_known_by_content(container: str, media_type: str) -> None:
    assert sniff(clips.video("mpeg4", container, frames=2)) == media_type


@pytest.mark.parametrize(
    ("head", "media_type"),
    [
        (b"\xff\xfb\x90\x64" + b"\0" * 100, "audio/mpeg"),
        (b"#EXTM3U\n#EXTINF:1,\na.ts\n", "application/vnd.apple.mpegurl"),
        ("\ufeff#EXTM3U\n".encode(), "application/vnd.apple.mpegurl"),
        (b"ffconcat version 1.0\nfile 'a.mp4'\n", "text/x-ffconcat"),
        (b"<!DOCTYPE html><html>", "text/html"),
        (b"<svg xmlns='x'/>", "text/xml"),
        (b"%PDF-1.7", "application/pdf"),
        (b"PK\x03\x04rest", "application/zip"),
        ("ein Text, größer".encode(), "text/plain"),
        (b"v/1\x01\x02\0\0\0", "image/x-exr"),
        (b"", None),
        (bytes(range(256)), None),
    ],
)
def test_other_heads(head: bytes, media_type: str | None) -> None:
    assert sniff(head) == media_type


def test_an_array_file_is_known() -> None:
    assert sniff(clips.npy(np.zeros((2, 2)))) == "application/x-npy"


@given(st.binary(max_size=600))
def test_any_bytes_have_a_type_or_none(head: bytes) -> None:
    found = sniff(head)
    assert found is None or "/" in found


def test_the_refusal_says_what_it_looks_like_and_what_is_taken() -> None:
    with pytest.raises(UnsupportedMedia, match=r"film\.mp4 looks like text/plain .* video takes video/mp4"):
        require_type(Source.of(b"hello there", "film.mp4"), ("video/mp4",), "video")
    with pytest.raises(EmptyMedia, match="empty"):
        require_type(Source.of(b"", "a"), ("video/mp4",), "video")
