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

DAMAGED = """
import io, random, sys
import numpy as np, tifffile
from bindery.errors import BinderyError
from bindery.limits import Limits
from bindery.media.source import Source
from bindery.media.tiff import open_tiff

rng = np.random.default_rng(0)
file = io.BytesIO()
tifffile.imwrite(file, (np.cumsum(rng.integers(0, 3, 3600)) % 251).astype(np.uint16).reshape(60, 60), compression="lzw")
data = file.getvalue()
dice, refused = random.Random(0), 0
for _ in range(400):
    damaged = bytearray(data)
    for _ in range(3):
        damaged[dice.randrange(300, len(data))] = dice.randrange(256)
    try:
        open_tiff(Source.of(bytes(damaged)), Limits()).read()
    except BinderyError:
        refused += 1
print(refused)
"""


def test_damaged_lzw_does_not_crash_the_process() -> None:
    """In a process of its own: without the check a strip or two of these end it by a segmentation fault."""
    done = subprocess.run([sys.executable, "-c", DAMAGED], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr[-500:]
    assert int(done.stdout) > 0


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
