"""What is sent: made media of four kinds, mixed by weight. No two requests are equal, so that no cache answers in place of the models."""

from __future__ import annotations

import io
import json
import math
import random
import struct
import wave
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache

from bindery.errors import InvalidParameter

WORDS = ("a", "small", "red", "dog", "runs", "over", "green", "hill", "beside", "old", "house", "near", "quiet", "water", "at", "night")
PICTURE = (640, 480)  # pixels
CLIP = (320, 240)
CLIP_FRAMES, CLIP_RATE = 50, 25
SOUND_SECONDS, SOUND_RATE = 2, 16_000
VARIANTS = 4  # different pictures, sounds and clips; copies of each differ in a few bytes
WAV_HEADER_BYTES = 44


@dataclass(frozen=True, slots=True)
class Parcel:
    """One request to be sent. ``poison``: the file is broken, and an error is its right answer."""

    kind: str
    content_type: str
    body: bytes
    poison: bool = False


class Mix:
    """Draws parcels. The same seed draws the same ones, another seed none of them."""

    def __init__(self, weights: Mapping[str, float], poison: float, rng: random.Random) -> None:
        self.kinds = list(weights)
        self._weights = list(weights.values())
        self._poison = poison
        self._rng = rng
        self._number = 0
        self._mark = rng.randrange(2**31)  # files of another seed are others, too
        for kind in set(self.kinds) - {"text"} | ({"image"} if poison else set()):  # made before the clock runs
            for variant in range(VARIANTS):
                _MEDIA[kind](variant)

    def draw(self) -> Parcel:
        self._number += 1
        if self._rng.random() < self._poison:
            broken = _picture(self._number % VARIANTS)[:-2000] + (self._mark + self._number).to_bytes(8, "big")
            return Parcel("image", "image/jpeg", broken, poison=True)
        kind = self._rng.choices(self.kinds, self._weights)[0]
        if kind == "text":
            words = " ".join(self._rng.choices(WORDS, k=10))
            return Parcel(kind, "application/json", json.dumps({"inputs": [f"{words} {self._number}"]}).encode())
        file = _MEDIA[kind](self._number % VARIANTS)
        return Parcel(kind, _TYPES[kind], _MARKS[kind](file, self._mark + self._number))


def parse_mix(text: str) -> dict[str, float]:
    """``text=80,image=20`` as weights. Raises `InvalidParameter`."""
    weights: dict[str, float] = {}
    for part in text.split(","):
        kind, _, number = part.strip().partition("=")
        if kind != "text" and kind not in _MEDIA:
            raise InvalidParameter(f"--mix names {kind!r}; it takes text, {', '.join(_MEDIA)}")
        try:
            weights[kind] = float(number)
        except ValueError:
            raise InvalidParameter(f"--mix {kind} has the weight {number!r}; write {kind}=80") from None
    if not all(math.isfinite(weight) and weight >= 0 for weight in weights.values()) or sum(weights.values()) == 0:
        raise InvalidParameter("--mix needs weights that are not negative, and one above zero")
    return {kind: weight for kind, weight in weights.items() if weight > 0}


@cache
def _picture(variant: int) -> bytes:
    """A JPEG with the soft shapes of a photograph, which decode as slowly as one; noise would not."""
    from PIL import Image

    stream = io.BytesIO()
    coarse = random.Random(variant).randbytes(16 * 12 * 3)
    Image.frombytes("RGB", (16, 12), coarse).resize(PICTURE, Image.Resampling.BICUBIC).save(stream, "JPEG", quality=85)
    return stream.getvalue()


@cache
def _sound(variant: int) -> bytes:
    stream = io.BytesIO()
    with wave.open(stream, "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(SOUND_RATE)
        turn = 2 * math.pi * 220 * (variant + 1) / SOUND_RATE
        file.writeframes(b"".join(struct.pack("<h", int(12_000 * math.sin(turn * n))) for n in range(SOUND_SECONDS * SOUND_RATE)))
    return stream.getvalue()


@cache
def _clip(variant: int) -> bytes:
    import av
    import numpy as np
    from PIL import Image

    picture = Image.open(io.BytesIO(_picture(variant))).resize(CLIP)
    stream = io.BytesIO()
    with av.open(stream, "w", format="mp4") as container:
        track = container.add_stream("mpeg4", rate=CLIP_RATE)
        track.width, track.height, track.pix_fmt = *CLIP, "yuv420p"
        for number in range(CLIP_FRAMES):
            turned = np.asarray(picture.rotate(number))  # (height, width, 3)
            container.mux(track.encode(av.VideoFrame.from_ndarray(turned, format="rgb24")))
        container.mux(track.encode())
    return stream.getvalue()


def _marked_jpeg(file: bytes, number: int) -> bytes:
    return file[:2] + b"\xff\xfe" + struct.pack(">HQ", 10, number) + file[2:]  # a comment behind the start-of-image marker


def _marked_wav(file: bytes, number: int) -> bytes:
    return file[:WAV_HEADER_BYTES] + struct.pack("<I", number) + file[WAV_HEADER_BYTES + 4 :]  # its first two samples


def _marked_mp4(file: bytes, number: int) -> bytes:
    return file + struct.pack(">I4sQ", 16, b"free", number)


_MEDIA: Mapping[str, Callable[[int], bytes]] = {"image": _picture, "audio": _sound, "video": _clip}
_MARKS: Mapping[str, Callable[[bytes, int], bytes]] = {"image": _marked_jpeg, "audio": _marked_wav, "video": _marked_mp4}
_TYPES = {"image": "image/jpeg", "audio": "audio/wav", "video": "video/mp4"}
