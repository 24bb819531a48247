from __future__ import annotations

import io
import subprocess
import sys

import numpy as np
import pytest
import tifffile

from bindery.errors import UnreadableMedia
from bindery.limits import Limits
from bindery.media.source import Source
from bindery.media.tiff import open_tiff
from tests.media import clips

READ = """
import sys
from bindery.errors import UnreadableMedia
from bindery.limits import Limits
from bindery.media.source import Source
from bindery.media.tiff import open_tiff
try:
    open_tiff(Source.of(sys.stdin.buffer.read()), Limits()).read()
except UnreadableMedia:
    print("refused")
"""


def test_damaged_lzw_does_not_crash_the_process() -> None:
    """In a process of its own, because without the check these three bytes end it by a segmentation fault."""
    file = io.BytesIO()
    tifffile.imwrite(file, clips.gradient().astype(np.uint16) * 257, photometric="rgb", compression="lzw")
    damaged = bytearray(file.getvalue())
    file.seek(0)
    with tifffile.TiffFile(file) as tiff:
        strip = tiff.pages.first.dataoffsets[0]
    for place, byte in ((1, 127), (127, 0), (319, 127)):
        damaged[strip + place] = byte
    done = subprocess.run([sys.executable, "-c", READ], input=bytes(damaged), capture_output=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr[-500:]
    assert done.stdout.strip() == b"refused"


def test_rare_compressions_and_odd_bit_depths_are_named() -> None:
    file = io.BytesIO()
    tifffile.imwrite(file, np.zeros((16, 16), np.uint16), compression="lzma")
    with pytest.raises(UnreadableMedia, match="LZMA"):
        open_tiff(Source.of(file.getvalue()), Limits())
    file = io.BytesIO()
    tifffile.imwrite(file, np.zeros((16, 16), np.uint16), bitspersample=12)
    with pytest.raises(UnreadableMedia, match="12 bits"):
        open_tiff(Source.of(file.getvalue()), Limits())


def test_many_samples_a_pixel_are_no_picture() -> None:
    file = io.BytesIO()
    tifffile.imwrite(file, np.zeros((16, 16, 7), np.uint16), photometric="minisblack", planarconfig="contig")
    with pytest.raises(UnreadableMedia, match="7 samples"):
        open_tiff(Source.of(file.getvalue()), Limits())
