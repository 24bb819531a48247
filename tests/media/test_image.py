from __future__ import annotations

import io
import warnings

import numpy as np
import pytest
import tifffile
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from bindery.errors import TooManyPixels, UnreadableMedia
from bindery.limits import Limits
from bindery.media.image import decode_picture, to_eight_bit
from bindery.media.source import Source
from tests.media import clips

LIMITS = Limits()
RGB = clips.gradient()
GRAY = RGB[..., 0]


@pytest.mark.parametrize("file_format", ["PNG", "TIFF", "BMP"])
def test_rgb_pixels_come_back_exactly(file_format: str) -> None:
    picture = decode_picture(Source.of(clips.encoded(Image.fromarray(RGB), file_format)), LIMITS)
    assert np.array_equal(picture.pixels, RGB)
    assert picture.alpha is None
    assert picture.orientation == 1


@pytest.mark.parametrize(
    ("mode", "file_format"),
    [
        ("1", "PNG"),
        ("L", "JPEG"),
        ("LA", "PNG"),
        ("P", "GIF"),
        ("RGBA", "WEBP"),
        ("RGBA", "PNG"),
        ("CMYK", "JPEG"),
        ("CMYK", "TIFF"),
        ("PA", "TIFF"),
    ],
)
def test_every_mode_becomes_rgb(mode: str, file_format: str) -> None:
    image = Image.fromarray(RGB).convert("P").convert("PA") if mode == "PA" else Image.fromarray(RGB).convert(mode)
    picture = decode_picture(Source.of(clips.encoded(image, file_format)), LIMITS)
    expected = np.asarray(image.convert("RGB"), dtype=int)
    assert picture.pixels.shape == RGB.shape
    assert picture.pixels.dtype == np.uint8
    assert np.abs(picture.pixels - expected).mean() < 12  # JPEG, WebP and GIF are lossy


def test_gray_is_repeated() -> None:
    picture = decode_picture(Source.of(clips.encoded(Image.fromarray(GRAY), "PNG")), LIMITS)
    assert np.array_equal(picture.pixels, np.repeat(GRAY[..., None], 3, axis=2))


def test_alpha_is_reported_and_not_applied() -> None:
    rgba = np.dstack([RGB, np.full(GRAY.shape, 17, np.uint8)])
    picture = decode_picture(Source.of(clips.encoded(Image.fromarray(rgba), "PNG")), LIMITS)
    assert np.array_equal(picture.pixels, RGB)
    assert picture.alpha is not None
    assert (picture.alpha == 17).all()


def test_a_transparent_palette_entry_is_alpha() -> None:
    palette = Image.fromarray(GRAY).convert("P")
    picture = decode_picture(Source.of(clips.encoded(palette, "PNG", transparency=0)), LIMITS)
    assert picture.alpha is not None
    assert np.array_equal(picture.alpha == 0, GRAY == 0)


def test_orientation_is_reported_and_not_applied() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    picture = decode_picture(Source.of(clips.encoded(Image.fromarray(RGB), "JPEG", exif=exif)), LIMITS)
    assert picture.orientation == 6
    assert picture.pixels.shape == RGB.shape


@pytest.mark.parametrize("dtype", ["<u2", ">u2"])
@pytest.mark.parametrize("writer", ["png", "tiff"])
def test_sixteen_bit_gray_is_scaled_and_not_wrapped(dtype: str, writer: str) -> None:
    wide = (GRAY.astype(np.uint16) * 257).astype(dtype)
    if writer == "png":
        data = clips.encoded(Image.fromarray(wide.astype("<u2")), "PNG")
    else:
        file = io.BytesIO()
        tifffile.imwrite(file, wide, byteorder=dtype[0])
        data = file.getvalue()
    assert np.array_equal(decode_picture(Source.of(data), LIMITS).pixels[..., 0], GRAY)


@pytest.mark.parametrize("compression", [None, "zlib", "lzw"])
@pytest.mark.parametrize("dtype", [np.uint16, np.float16, np.float32, np.float64])
def test_deep_colour_tiff_is_scaled_to_eight_bits(compression: str | None, dtype: type) -> None:
    deep = RGB.astype(np.uint16) * 257 if dtype is np.uint16 else (RGB / 255).astype(dtype)
    file = io.BytesIO()
    tifffile.imwrite(file, deep, photometric="rgb", compression=compression)
    assert np.array_equal(decode_picture(Source.of(file.getvalue()), LIMITS).pixels, RGB)


def test_planes_stored_apart_are_put_together() -> None:
    file = io.BytesIO()
    tifffile.imwrite(file, np.moveaxis(RGB.astype(np.uint16) * 257, -1, 0), photometric="rgb", planarconfig="separate")
    assert np.array_equal(decode_picture(Source.of(file.getvalue()), LIMITS).pixels, RGB)


def test_white_is_zero_is_turned_round() -> None:
    file = io.BytesIO()
    tifffile.imwrite(file, GRAY.astype(np.uint16) * 257, photometric="miniswhite")
    assert np.array_equal(decode_picture(Source.of(file.getvalue()), LIMITS).pixels[..., 0], 255 - GRAY)


def test_an_animation_gives_its_first_frame() -> None:
    first, second = Image.new("RGB", (8, 8), "red"), Image.new("RGB", (8, 8), "blue")
    picture = decode_picture(Source.of(clips.encoded(first, "GIF", save_all=True, append_images=[second])), LIMITS)
    assert picture.pixels[0, 0].tolist() == [255, 0, 0]


def test_a_picture_beyond_pillows_own_limit_gives_no_warning() -> None:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        with pytest.raises(TooManyPixels, match="limit pixels"):
            decode_picture(Source.of(clips.png_header(12_000, 12_000)), LIMITS)
    assert caught == []


@pytest.mark.parametrize(("width", "height"), [(100_000, 100_000), (16_385, 1), (10_000, 5_001)])
def test_size_is_checked_from_the_header(width: int, height: int) -> None:
    with pytest.raises(TooManyPixels, match=f"{width} x {height}"):
        decode_picture(Source.of(clips.png_header(width, height)), LIMITS)


def test_the_size_of_a_deep_tiff_is_checked_from_the_header() -> None:
    file = io.BytesIO()
    tifffile.imwrite(file, np.zeros((20, 30), np.uint16))
    with pytest.raises(TooManyPixels, match="30 x 20"):
        decode_picture(Source.of(file.getvalue()), Limits(pixels=599))


@pytest.mark.parametrize("file_format", ["JPEG", "PNG", "WEBP", "TIFF", "BMP"])
@pytest.mark.parametrize("share", [0.1, 0.5, 0.9])
def test_a_truncated_picture_is_unreadable_media(file_format: str, share: float) -> None:
    noisy = np.random.default_rng(0).integers(0, 256, (60, 60, 3), dtype=np.uint8)
    data = clips.encoded(Image.fromarray(noisy), file_format)
    with pytest.raises(UnreadableMedia, match=r"^cut\.pic"):
        decode_picture(Source.of(data[: int(len(data) * share)], "cut.pic"), LIMITS)


@given(st.lists(st.integers(0, 65535), min_size=1, max_size=20))
def test_sixteen_bits_to_eight_keep_order_and_ends(values: list[int]) -> None:
    eight = to_eight_bit(np.array([0, *sorted(values), 65535], np.uint16))
    assert eight[0] == 0
    assert eight[-1] == 255
    assert (np.diff(eight.astype(int)) >= 0).all()


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        (np.array([0.0, 0.5, 1.0]), [0, 128, 255]),
        (np.array([0.0, 127.0, 255.0]), [0, 127, 255]),
        (np.array([0, 255], np.int32), [0, 255]),
        (np.array([0, 65535], np.int32), [0, 255]),
        (np.array([-5, 0, 100_000], np.int64), [0, 0, 255]),
        (np.array([np.nan, np.inf, 1.0]), [0, 0, 255]),
        (np.array([False, True]), [0, 255]),
        (np.array([0, 0], np.uint32), [0, 0]),
    ],
)
def test_white_of_types_without_an_agreed_white(values: np.ndarray, expected: list[int]) -> None:
    assert to_eight_bit(values).tolist() == expected
