"""What a program holds in memory becomes the lossless file that carries it, and walks the same way as every other file."""

from __future__ import annotations

import io
import os
from typing import Any, BinaryIO, TypeAlias

import numpy as np
from numpy.typing import NDArray

from bindery.decoded import Waveform
from bindery.errors import EmptyMedia, InvalidParameter, TooLong, UnsupportedMedia
from bindery.limits import Limits
from bindery.media.source import Source

Input: TypeAlias = str | os.PathLike[str] | bytes | BinaryIO | Source | Waveform | NDArray[Any] | Any
"""A text, or a medium: a path, bytes, an open file, a Pillow image, a `Waveform`, or an array.

Arrays: uint8 pixels ``(height, width)``, ``(height, width, 3 or 4)`` of a picture; uint8 RGB ``(frames, height, width, 3)`` of a
video, which then lasts 1/25 s a frame; ``(height, width)`` of a depth map (floats are metres) or of a thermal picture.
"""

_FRAMES_A_SECOND = 25


def text_of(value: Input, limits: Limits) -> str:
    """Raises `UnsupportedMedia`, `TooLong`."""
    if not isinstance(value, str):
        raise UnsupportedMedia(f"a text is a string, not {type(value).__name__}")
    if len(value) > limits.text_chars:
        raise TooLong(f"the text has {len(value)} characters; at most {limits.text_chars} are taken (limit text_chars)")
    return value


def source_of(modality: str, kind: str, value: Input) -> Source:
    """Raises `UnsupportedMedia`, `EmptyMedia`, `InvalidParameter` for what cannot be a medium of this kind."""
    if isinstance(value, Waveform):
        return Source.of(_wav(value), name=f"{modality} waveform")
    if isinstance(value, np.ndarray):
        return Source.of(_file_of(kind, value), name=f"{modality} array")
    if hasattr(value, "save") and hasattr(value, "getbands"):  # a Pillow image, without importing Pillow for those who have none
        stream = io.BytesIO()
        value.save(stream, format="PNG")
        return Source.of(stream.getvalue(), name="image.png")
    if isinstance(value, (bytes, bytearray)) and not value:
        raise EmptyMedia(f"the {modality} input has no bytes")
    return Source.of(value)


def _file_of(kind: str, array: NDArray[Any]) -> bytes:
    if array.size == 0:
        raise EmptyMedia(f"the array of shape {array.shape} holds nothing")
    match kind:
        case "audio":
            raise InvalidParameter("an array of samples does not say its rate; give bindery.Waveform(samples, rate)")
        case "video":
            return _mkv(array)
        case "image":
            return _png(array)
    if array.dtype == np.uint8 and array.ndim == 3:
        return _png(array)
    stream = io.BytesIO()
    np.save(stream, array, allow_pickle=False)
    return stream.getvalue()


def _png(pixels: NDArray[Any]) -> bytes:
    from PIL import Image

    if pixels.dtype != np.uint8 or not (pixels.ndim == 2 or (pixels.ndim == 3 and pixels.shape[2] in (3, 4))):
        raise UnsupportedMedia(f"pixels are uint8 (height, width), with 3 or 4 channels behind if any, not {pixels.dtype} {pixels.shape}")
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, format="PNG", compress_level=1)
    return stream.getvalue()


def _wav(sound: Waveform) -> bytes:
    import soundfile

    samples: NDArray[Any] = np.atleast_2d(sound.samples)  # (channels, samples)
    if samples.ndim != 2 or samples.dtype.kind not in "fi" or sound.rate <= 0:
        raise UnsupportedMedia(f"a waveform is (samples,) or (channels, samples) at a rate in Hz, not {samples.shape} at {sound.rate}")
    if samples.dtype.kind == "i":
        samples = samples / float(-np.iinfo(samples.dtype).min)
    stream = io.BytesIO()
    soundfile.write(stream, samples.T.astype(np.float32), sound.rate, format="WAV", subtype="FLOAT")
    return stream.getvalue()


def _mkv(pixels: NDArray[Any]) -> bytes:
    import av

    if pixels.dtype != np.uint8 or pixels.ndim != 4 or pixels.shape[3] != 3:
        raise UnsupportedMedia(f"frames are uint8 (frames, height, width, 3), not {pixels.dtype} {pixels.shape}")
    stream = io.BytesIO()
    with av.open(stream, "w", format="matroska") as container:
        track = container.add_stream("ffv1", rate=_FRAMES_A_SECOND)
        track.height, track.width = pixels.shape[1:3]
        track.pix_fmt = "bgr0"
        for frame in pixels:
            container.mux(track.encode(av.VideoFrame.from_ndarray(np.ascontiguousarray(frame), format="rgb24")))
        container.mux(track.encode())
    return stream.getvalue()
