"""Guards around codecs: sizes checked before allocation, and every codec's failure turned into one error."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from bindery.errors import BinderyError, DecoderKilled, EmptyMedia, TooLong, TooManyBytes, TooManyPixels, UnreadableMedia
from bindery.limits import Limits
from bindery.media.source import Source


@contextmanager
def reading(source: Source, what: str) -> Iterator[None]:
    """Turns whatever a codec raises on damaged bytes into `UnreadableMedia` (or `DecoderKilled`) that names the file."""
    try:
        yield
    except BinderyError:
        raise
    except MemoryError as error:  # also FFmpeg's: a damaged header may ask for any amount
        raise DecoderKilled(f"{source.name} needs more memory to decode as {what} than there is") from error
    except Exception as error:  # codecs raise any class on hostile bytes (SyntaxError, struct.error, ...): each means the same
        reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
        raise UnreadableMedia(f"{source.name} cannot be decoded as {what}: {str(reason).splitlines()[0][:200]}") from error


def check_bytes(source: Source, limits: Limits) -> None:
    """Raises `EmptyMedia` for no bytes, `TooManyBytes` beyond ``file_bytes``."""
    size = source.size_bytes
    if size == 0:
        raise EmptyMedia(f"{source.name} is empty (0 bytes)")
    if size > limits.file_bytes:
        raise too_many_bytes(source.name, size, limits)


def too_many_bytes(name: str, size: int, limits: Limits) -> TooManyBytes:
    return TooManyBytes(f"{name} has {size} bytes; one file may have {limits.file_bytes} (limit file_bytes)")


def check_pixels(name: str, width: int, height: int, limits: Limits) -> None:
    """Raises `EmptyMedia` for a side of 0, `TooManyPixels` beyond ``side_px`` or ``pixels``."""
    if width < 1 or height < 1:
        raise EmptyMedia(f"{name} says that it is {width} x {height} pixels")
    if max(width, height) > limits.side_px:
        raise TooManyPixels(f"{name} is {width} x {height} pixels; a side may have {limits.side_px} (limit side_px)")
    if width * height > limits.pixels:
        raise TooManyPixels(f"{name} is {width} x {height} = {width * height} pixels; at most {limits.pixels} are taken (limit pixels)")


def check_seconds(name: str, seconds: float, limits: Limits) -> None:
    """Raises `TooLong` beyond ``media_seconds``."""
    if seconds > limits.media_seconds:
        raise TooLong(
            f"{name} lasts {seconds:.1f} s; at most {limits.media_seconds:g} s are taken (limit media_seconds): "
            "ask for a part with start and end"
        )
