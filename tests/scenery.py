"""Videos of known scenes, made here: each a picture of its own that moves, so that neighbouring frames are never equal."""

from __future__ import annotations

import io
from collections.abc import Iterable, Iterator
from typing import Any

import av
import numpy as np
from numpy.typing import NDArray

from tests.longmedia import add_quiet

Picture = NDArray[np.uint8]  # (height, width, 3)

HEIGHT, WIDTH, RATE = 72, 128, 25


def scene(number: int, seconds: float, *, step: int = 1, rate: int = RATE) -> Iterator[Picture]:
    """A landscape of large patches, another one for each number, of which a moving part is seen: ``step`` pixels a frame."""
    random = np.random.default_rng(number)
    patches = random.integers(0, 256, (9, 64, 3)).astype(np.uint8)
    land = patches.repeat(8, axis=0).repeat(16, axis=1)  # (72, 1024, 3)
    for at in range(round(seconds * rate)):
        left = at * step % (land.shape[1] - WIDTH)
        yield land[:, left : left + WIDTH]


def plain(color: tuple[int, int, int], seconds: float, *, rate: int = RATE) -> Iterator[Picture]:
    for _ in range(round(seconds * rate)):
        yield np.full((HEIGHT, WIDTH, 3), color, np.uint8)


def dissolve(one: Iterable[Picture], other: Iterable[Picture]) -> Iterator[Picture]:
    """From one to the other, as long as the shorter of them."""
    pairs = list(zip(one, other, strict=False))
    for number, (left, right) in enumerate(pairs):
        share = (number + 1) / (len(pairs) + 1)
        yield (left * (1 - share) + right * share).astype(np.uint8)


def film(
    pictures: Iterable[Picture],
    *,
    codec: str = "libx264",
    container: str = "mp4",
    rate: int = RATE,
    key_every: int = 250,
    sound_s: float | None = None,
) -> bytes:
    """Encoded as they come, so any number of them; with a quiet sound beside them when ``sound_s`` is given."""
    file = io.BytesIO()
    with av.open(file, "w", format=container) as out:
        stream: Any = out.add_stream(codec, rate=rate, options={"preset": "ultrafast", "bf": "2"} if codec == "libx264" else {})
        stream.width, stream.height, stream.pix_fmt = WIDTH, HEIGHT, "yuv420p"
        stream.gop_size = key_every
        stream.codec_context.thread_count = 1
        sound = None if sound_s is None else out.add_stream("aac", rate=16_000, layout="mono")
        for picture in pictures:
            out.mux(stream.encode(av.VideoFrame.from_ndarray(np.ascontiguousarray(picture), format="rgb24")))
        out.mux(stream.encode())
        if sound is not None and sound_s is not None:
            add_quiet(out, sound, sound_s)
    return file.getvalue()
