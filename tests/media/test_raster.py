from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import OpenEXR
import pytest
import tifffile
from numpy.typing import NDArray
from PIL import Image

from bindery.decoded import Picture, Raster
from bindery.errors import AmbiguousDepth, EmptyMedia, InvalidParameter, TooManyPixels, UnreadableMedia, UnsupportedMedia
from bindery.limits import Limits
from bindery.media.raster import decode_depth, decode_thermal
from bindery.media.source import Source
from tests.media import clips

LIMITS = Limits()
METRES = (np.arange(12 * 20, dtype=np.float32).reshape(12, 20) / 20).round(3)  # 0 .. 12 m
MILLIMETRES = np.rint(METRES * 1000).astype(np.uint16)


def depth(data: bytes, **stated: Any) -> NDArray[np.float32]:
    options = {"unit": None, "scale": None, "eight_bit": "reject", **stated}
    return decode_depth(Source.of(data, "d.file"), LIMITS, **options).values


def thermal(data: bytes, low: float | None = None, high: float | None = None) -> Picture | Raster:
    return decode_thermal(Source.of(data, "t.file"), LIMITS, range_min=low, range_max=high)


def tiff(array: NDArray[Any], **options: Any) -> bytes:
    file = io.BytesIO()
    tifffile.imwrite(file, array, **options)
    return file.getvalue()


def exr(tmp_path: Path, **planes: NDArray[Any]) -> bytes:
    path = tmp_path / "a.exr"
    OpenEXR.File({"compression": OpenEXR.ZIP_COMPRESSION, "type": OpenEXR.scanlineimage}, planes).write(str(path))
    return path.read_bytes()


def test_a_sixteen_bit_png_is_millimetres() -> None:
    assert depth(clips.encoded(Image.fromarray(MILLIMETRES), "PNG")) == pytest.approx(METRES, abs=1e-6)


@pytest.mark.parametrize("dtype", ["<u2", ">u2", "<i2", "<i4", "<u4", "<i8"])
def test_whole_numbers_are_millimetres_in_any_type(dtype: str) -> None:
    assert depth(clips.npy(MILLIMETRES.astype(dtype))) == pytest.approx(METRES, abs=1e-6)


@pytest.mark.parametrize("dtype", ["<f2", "<f4", ">f4", "<f8"])
def test_floats_are_metres_in_any_type(dtype: str) -> None:
    tolerance = 5e-3 if dtype == "<f2" else 1e-6
    assert depth(clips.npy(METRES.astype(dtype))) == pytest.approx(METRES, abs=tolerance)
    assert depth(clips.npy(np.asfortranarray(METRES.astype(dtype)))) == pytest.approx(METRES, abs=tolerance)


@pytest.mark.parametrize(
    "options", [{}, {"compression": "zlib"}, {"compression": "zstd"}, {"compression": "lzw", "predictor": True}, {"tile": (16, 16)}]
)
@pytest.mark.parametrize("dtype", [np.uint16, np.int32, np.float16, np.float32, np.float64])
def test_tiff_depth_of_any_type_and_packing(dtype: type, options: dict[str, Any]) -> None:
    stored = METRES.astype(dtype) if np.issubdtype(dtype, np.floating) else MILLIMETRES.astype(dtype)
    assert depth(tiff(stored, **options)) == pytest.approx(METRES, abs=5e-3 if dtype is np.float16 else 1e-6)


@pytest.mark.parametrize("dtype", [np.float16, np.float32])
@pytest.mark.parametrize("name", ["Z", "Y", "V", "R", "depth"])
def test_exr_depth_is_metres(tmp_path: Path, name: str, dtype: type) -> None:
    tolerance = 5e-3 if dtype is np.float16 else 1e-6
    assert depth(exr(tmp_path, **{name: METRES.astype(dtype)})) == pytest.approx(METRES, abs=tolerance)


def test_exr_with_colours_and_depth_gives_the_depth(tmp_path: Path) -> None:
    colour = np.zeros_like(METRES)
    assert depth(exr(tmp_path, R=colour, G=colour, B=colour + 1, Z=METRES)) == pytest.approx(METRES)
    assert depth(exr(tmp_path, R=METRES, G=METRES, B=METRES)) == pytest.approx(METRES)
    with pytest.raises(AmbiguousDepth, match="channels"):
        depth(exr(tmp_path, R=colour, G=colour, B=METRES))


def test_a_stated_unit_or_scale_rules() -> None:
    whole, floating = clips.npy(MILLIMETRES), clips.npy(METRES * 1000)
    assert depth(whole, unit="m") == pytest.approx(MILLIMETRES)
    assert depth(floating, unit="mm") == pytest.approx(METRES, rel=1e-6)
    assert depth(whole, scale=0.0002) == pytest.approx(METRES / 5, rel=1e-6)
    assert depth(whole, scale=0.0002, unit="m") == pytest.approx(METRES / 5, rel=1e-6)


def test_eight_bits_without_a_scale_are_ambiguous() -> None:
    eight = (METRES * 20).astype(np.uint8)
    files = [clips.encoded(Image.fromarray(eight), "PNG"), clips.encoded(Image.fromarray(eight), "JPEG"), clips.npy(eight), tiff(eight)]
    for data in files:
        with pytest.raises(AmbiguousDepth, match=r"d\.file .*depth_scale.*depth_unit"):
            depth(data)
    png = files[0]
    assert depth(png, scale=0.05) == pytest.approx(eight * 0.05, rel=1e-6)
    assert depth(png, unit="m") == pytest.approx(eight)
    assert depth(png, eight_bit="millimetres") == pytest.approx(eight / 1000, rel=1e-6)


def test_coloured_depth_is_ambiguous_whatever_is_stated() -> None:
    colours = clips.gradient()
    files = [
        clips.encoded(Image.fromarray(colours), "PNG"),
        clips.encoded(Image.fromarray(colours).convert("P"), "PNG"),
        clips.npy(colours),
        tiff(colours.astype(np.uint16), photometric="rgb"),
    ]
    for data in files:
        with pytest.raises(AmbiguousDepth, match="colour"):
            depth(data, unit="mm")


def test_holes_are_zero() -> None:
    holed = METRES.copy()
    holed[0, :3] = np.nan, np.inf, -np.inf
    assert depth(clips.npy(holed))[0, :3].tolist() == [0.0, 0.0, 0.0]


def test_rendered_thermal_stays_a_picture() -> None:
    colours = clips.gradient()
    gray = colours[..., 0]
    for data in (clips.encoded(Image.fromarray(gray), "PNG"), clips.npy(gray), tiff(gray)):
        picture = thermal(data)
        assert isinstance(picture, Picture)
        assert np.array_equal(picture.pixels, np.repeat(gray[..., None], 3, axis=2))
    picture = thermal(clips.npy(colours))
    assert isinstance(picture, Picture)
    assert np.array_equal(picture.pixels, colours)


def test_radiometric_thermal_is_mapped_by_the_range(tmp_path: Path) -> None:
    kelvin = np.linspace(250, 350, 240, dtype=np.float32).reshape(12, 20)
    centikelvin = np.rint(kelvin * 100).astype(np.uint16)
    expected = np.clip((kelvin - 270) / 50, 0, 1)
    for data, unit in (
        (clips.npy(kelvin), 1),
        (tiff(kelvin), 1),
        (exr(tmp_path, Y=kelvin), 1),
        (tiff(centikelvin), 100),
        (clips.encoded(Image.fromarray(centikelvin), "PNG"), 100),
    ):
        raster = thermal(data, 270 * unit, 320 * unit)
        assert isinstance(raster, Raster)
        assert raster.values.dtype == np.float32
        assert raster.values == pytest.approx(expected, abs=2e-4)


def test_radiometric_thermal_without_a_range_is_an_invalid_parameter() -> None:
    with pytest.raises(InvalidParameter, match="range_min and range_max") as caught:
        thermal(clips.encoded(Image.fromarray(MILLIMETRES), "PNG"))
    assert caught.value.pointer == "/options/range_min"


def test_not_a_number_is_black() -> None:
    raster = thermal(clips.npy(np.array([[np.nan, 300.0]])), 290, 300)
    assert isinstance(raster, Raster)
    assert raster.values.tolist() == [[0.0, 1.0]]


@pytest.mark.parametrize("decode", [depth, thermal])
def test_array_files_are_checked_before_they_are_read(decode: Any) -> None:
    with pytest.raises(TooManyPixels, match="100000 x 100000"):
        decode(clips.npy_header("(100000, 100000)"))
    with pytest.raises(UnreadableMedia, match="cut off"):
        decode(clips.npy(METRES)[:-1])
    with pytest.raises(UnreadableMedia, match="object"):
        decode(clips.npy(np.array([[1, "a"]], dtype=object), allow_pickle=True))
    for shape in ("(10,)", "(2, 3, 4, 5)", "(3, 10, 10)", "()"):
        with pytest.raises(UnreadableMedia, match="shape"):
            decode(clips.npy_header(shape))
    with pytest.raises(UnreadableMedia):
        decode(b"\x93NUMPY\x01\x00\x10\x00" + b"{'descr': evil()")
    assert decode(clips.npy(METRES[None, :, :]), **({} if decode is depth else {"low": 0, "high": 1})) is not None


def test_an_exr_header_is_checked_before_its_pixels(tmp_path: Path) -> None:
    data = exr(tmp_path, Z=METRES)
    with pytest.raises(TooManyPixels, match="20 x 12"):
        decode_depth(Source.of(data), Limits(pixels=239), unit=None, scale=None, eight_bit="reject")
    with pytest.raises(UnreadableMedia, match="OpenEXR"):
        depth(data[: len(data) // 2])


def test_other_files_are_unsupported() -> None:
    with pytest.raises(UnsupportedMedia, match="looks like text/plain"):
        depth(b"not a depth map")


def test_signalling_and_oversized_numbers_are_holes() -> None:
    signalling = np.array([[0x7FA00000, 0x3F800000]], np.uint32).view(np.float32)  # a signalling NaN, then 1.0
    assert depth(clips.npy(signalling)).tolist() == [[0.0, 1.0]]
    assert depth(clips.npy(np.array([[1e300, 2.0]]))).tolist() == [[0.0, 2.0]]
    raster = thermal(clips.npy(signalling), 0, 1)
    assert isinstance(raster, Raster)
    assert raster.values.tolist() == [[0.0, 1.0]]


def test_a_damaged_exr_prints_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = bytearray(exr(tmp_path, Z=np.zeros((64, 50), np.float32)))
    for at in range(len(data) - 20, len(data)):
        data[at] ^= 0xFF
    with pytest.raises(UnreadableMedia):
        depth(bytes(data))
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize("hole", [np.nan, np.inf])
def test_a_raster_without_one_measured_value_is_empty_media(hole: float) -> None:
    nothing = clips.npy(np.full((4, 5), hole, np.float32))
    for decode in (depth, thermal):
        with pytest.raises(EmptyMedia, match="no measured value"):
            decode(nothing)
