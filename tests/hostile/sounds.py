"""Sounds: hours of silence in kilobytes, lying lengths, floods of comments, rates and channels from nowhere."""

from __future__ import annotations

import io
import struct
from functools import lru_cache

import numpy as np
import soundfile

from tests.hostile.pictures import File
from tests.media.clips import sound, tone, wav


@lru_cache
def long_silence(hours: float = 10.0) -> bytes:
    """Silence as FLAC: hours in little space, written a minute at a time."""
    file = io.BytesIO()
    minute = np.zeros(8000 * 60, np.int16)
    with soundfile.SoundFile(file, "w", 8000, 1, format="FLAC", subtype="PCM_16") as out:
        for _ in range(int(hours * 60)):
            out.write(minute)
    return file.getvalue()


def long_claim_flac() -> bytes:
    """A short FLAC whose header claims 2^36 - 1 samples."""
    data = bytearray(_flac(tone(8000, 0.5)[0]))
    data[21] |= 0x0F
    data[22:26] = b"\xff" * 4
    return bytes(data)


def unsized_flac() -> bytes:
    """Ten hours whose header does not say how many samples there are."""
    data = bytearray(long_silence())
    data[21] &= 0xF0
    data[22:26] = bytes(4)
    return bytes(data)


def _flac(samples: np.ndarray, rate: int = 8000) -> bytes:
    file = io.BytesIO()
    soundfile.write(file, samples, rate, format="FLAC", subtype="PCM_16")
    return file.getvalue()


def float_wav(values: np.ndarray, rate: int = 16_000) -> bytes:
    file = io.BytesIO()
    soundfile.write(file, values, rate, format="WAV", subtype="FLOAT")
    return file.getvalue()


def comment_flood() -> bytes:
    """A FLAC with 10,000 comments."""
    plain = _flac(tone(8000, 0.5)[0])
    comments = b"".join(struct.pack("<I", 9) + b"KEY=value" for _ in range(10_000))
    block = struct.pack("<I", 4) + b"none" + struct.pack("<I", 10_000) + comments
    return plain[:4] + plain[4:42] + bytes([4]) + len(block).to_bytes(3, "big") + block + plain[42:]


def id3_flood() -> bytes:
    """10,000 ID3 frames before a second of MP3."""
    frames = b"".join(b"TXXX" + struct.pack(">I", 5) + b"\0\0\0a\0bc" for _ in range(10_000))
    size = len(frames)
    syncsafe = bytes((size >> shift) & 0x7F for shift in (21, 14, 7, 0))
    return b"ID3\x03\0\0" + syncsafe + frames + sound("mp3", "mp3", tone(44_100, 1.0), 44_100)


def id3_giant() -> bytes:
    """An ID3 block that claims a quarter of a gigabyte."""
    return b"ID3\x03\0\0\x7f\x7f\x7f\x7f" + bytes(5000)


def rate_of(rate: int) -> bytes:
    return wav(bytes(2000), rate=rate)


def eight_channels() -> bytes:
    return float_wav(np.zeros((1600, 8), np.float32) + 0.1)


def nine_channels() -> bytes:
    return float_wav(np.zeros((1600, 9), np.float32))


def bad_chunk() -> bytes:
    return b"RIFF" + struct.pack("<I", 1 << 30) + b"WAVEjunk" + struct.pack("<I", 1 << 30) + bytes(100)


def chunk_flood() -> bytes:
    body = wav(bytes(3200))
    return body[:12] + b"junk\0\0\0\0" * 100_000 + body[12:]


BAD = "unreadable_media"
FILES: list[File] = [
    ("audio", "ten-hours.flac", "too_long", long_silence),
    ("audio", "unsized.flac", "too_long unreadable_media decoder_killed", unsized_flac),
    ("audio", "long-claim.flac", "too_long unreadable_media", long_claim_flac),
    ("audio", "lying.wav", "too_long unreadable_media", lambda: wav(bytes(3200), claimed=1 << 30)),
    ("audio", "lying-a-little.wav", BAD, lambda: wav(bytes(3200), claimed=32_000)),
    ("audio", "streamed-length.wav", "ok", lambda: wav(bytes(3200), claimed=0xFFFFFFFF)),
    ("audio", "bad-chunk.wav", BAD, bad_chunk),
    ("audio", "chunk-flood.wav", "ok unreadable_media", chunk_flood),
    ("audio", "comment-flood.flac", "ok", comment_flood),
    ("audio", "id3-flood.mp3", "ok", id3_flood),
    ("audio", "id3-giant.mp3", BAD, id3_giant),
    ("audio", "nan.wav", "ok", lambda: float_wav(np.full(16_000, np.nan, np.float32))),
    ("audio", "infinite.wav", "ok", lambda: float_wav(np.full(16_000, np.inf, np.float32))),
    ("audio", "huge-values.wav", "ok", lambda: float_wav(np.full(16_000, 3e38, np.float32) * np.sign(tone(16_000, 1.0)[0]))),
    ("audio", "silence.wav", "ok", lambda: wav(bytes(32_000))),
    ("audio", "no-samples.wav", "empty_media unreadable_media", lambda: wav(b"")),
    ("audio", "one-sample.wav", "ok", lambda: wav(b"\1\0")),
    ("audio", "rate-192k.wav", "ok", lambda: float_wav(tone(192_000, 0.5)[0], 192_000)),
    ("audio", "rate-0.wav", BAD, lambda: rate_of(0)),
    ("audio", "rate-1.wav", "ok too_long unreadable_media", lambda: rate_of(1)),
    ("audio", "rate-4g.wav", BAD, lambda: rate_of(0xFFFFFF)),
    ("audio", "rate-odd.wav", "ok", lambda: rate_of(767_999)),
    ("audio", "eight-channels.wav", "ok", eight_channels),
    ("audio", "nine-channels.wav", "unsupported_media", nine_channels),
    ("audio", "cut.mp3", "ok unreadable_media", lambda: sound("mp3", "mp3", tone(44_100, 1.0), 44_100)[:3000]),
    ("audio", "cut.ogg", BAD, lambda: sound("libopus", "ogg", tone(48_000, 1.0), 48_000)[:200]),
]
