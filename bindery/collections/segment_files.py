"""A segment on disk: four files in a folder of their own, written once and never changed.

    vectors.f16   (n, d) float16, little-endian, as the catalog has them: what is compared at last, mapped and not read
    keys.i64      (n,) int64, ascending: the item of each row
    codes.faiss   FAISS's inverted file of 4-bit codes, row numbers as ids
    asked.f32     (d, d) float32, little-endian: makes of a query what is asked of the codes (`denoising`); not in small segments

A folder is made under another name and renamed when all of it is on disk, so a folder that has its name is whole.
"""

from __future__ import annotations

import hashlib
import shutil
import uuid
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import faiss
import numpy as np
from numpy.typing import NDArray

from bindery.collections import denoising, tiers
from bindery.disk import full_disk_told, to_disk

VECTORS, KEYS, CODES, ASKED = "vectors.f16", "keys.i64", "codes.faiss", "asked.f32"
_MAKING = ".making-"
_AT_ONCE = 8192  # rows
_READ_BYTES = 16 * 1024 * 1024
_SEED = 20_261_125
_LEAST_TRAINING_ROWS = 16

Keys = NDArray[np.int64]
Piece = tuple[Keys, NDArray[np.uint8]]  # keys, and rows of (2 d,) bytes
Files = Mapping[str, tuple[int, str]]


class SegmentDamaged(Exception):
    """A file of a segment is missing or not as it was written. Never reaches a caller: the catalog has the vectors."""


def write(root: Path, dimension: int, pieces: Iterator[Piece], stop: Callable[[], bool]) -> tuple[str, int, dict[str, tuple[int, str]]]:
    """Write a segment of the rows in ``pieces``, by ascending key: its folder's name below ``root``, its rows, its files.

    Holds the codes in memory, and of the vectors only some at a time. Raises `StorageFull`, and `InterruptedError` when
    ``stop()`` says so; then nothing is left.
    """
    name = uuid.uuid4().hex
    making = root / f"{_MAKING}{name}"
    with full_disk_told(f"no space left to write an index segment in {root}; free some, the items themselves are safe"):
        try:
            making.mkdir(parents=True)
            keys = _write_vectors(making / VECTORS, pieces, stop)
            _write_bytes(making / KEYS, keys.astype("<i8").tobytes())
            if len(keys):
                # Not by FAISS's own writer, which cannot say that the disk is full.
                index = _index(making / VECTORS, dimension, len(keys), stop)
                _write_bytes(making / CODES, faiss.serialize_index(index).data)
                if denoising.enough(len(keys), dimension):
                    _may_go_on(stop)
                    _write_bytes(making / ASKED, _asked(making / VECTORS, dimension, len(keys), index).astype("<f4").tobytes())
            files = {path.name: (path.stat().st_size, digest(path)) for path in sorted(making.iterdir())}
            for path in (*making.iterdir(), making):
                to_disk(path)
            making.rename(root / name)
            to_disk(root)
        except BaseException:
            shutil.rmtree(making, ignore_errors=True)
            raise
    return name, len(keys), files


def check(folder: Path, files: Files, name: str, *, whole: bool = True, stop: Callable[[], bool] = lambda: False) -> Path:
    """The path of one file, when it is as it was written; not ``whole``: when it has the right size.

    Raises `SegmentDamaged`, and `InterruptedError` when ``stop()`` says so.
    """
    path = folder / name
    try:
        size, wanted = files[name]
        if path.stat().st_size != size:
            raise SegmentDamaged(f"{path} has {path.stat().st_size} bytes instead of {size}")
        if whole and digest(path, stop) != wanted:
            raise SegmentDamaged(f"{path} is not what was written (its SHA-256 differs)")
    except InterruptedError:
        raise
    except (OSError, KeyError) as error:
        raise SegmentDamaged(f"{path} cannot be read: {error}") from error
    return path


def sweep(root: Path, kept: set[str]) -> None:
    """Remove every folder below ``root`` that is not in ``kept``: leftovers of a crash, and segments that were replaced."""
    if root.is_dir():
        for path in root.iterdir():
            if path.is_dir() and path.name not in kept:
                shutil.rmtree(path, ignore_errors=True)


def digest(path: Path, stop: Callable[[], bool] = lambda: False) -> str:
    """SHA-256 in hex. Raises `InterruptedError` when ``stop()`` says so."""
    found = hashlib.sha256()
    with path.open("rb") as file:
        while piece := file.read(_READ_BYTES):
            _may_go_on(stop)
            found.update(piece)
    return found.hexdigest()


def _write_vectors(path: Path, pieces: Iterator[Piece], stop: Callable[[], bool]) -> Keys:
    kept: list[Keys] = []
    with path.open("wb") as file:
        for keys, rows in pieces:
            _may_go_on(stop)
            file.write(rows.data)
            kept.append(keys)
    return np.concatenate([np.empty(0, dtype=np.int64), *kept])


def _index(path: Path, dimension: int, rows: int, stop: Callable[[], bool]) -> faiss.IndexIVFPQFastScan:
    faiss.omp_set_num_threads(1)  # in the background: searches need the other cores
    vectors = np.memmap(path, dtype="<f2", mode="r", shape=(rows, dimension))
    quantizer = faiss.IndexFlatIP(dimension)
    index = faiss.IndexIVFPQFastScan(quantizer, dimension, tiers.lists(rows), tiers.code_parts(dimension), 4, faiss.METRIC_INNER_PRODUCT)
    index.by_residual = False  # so that codes mean the same in every list, and the tables are made once a query
    # A quarter of FAISS's own training, of rows and of rounds: what it finds differs by less than from one sample to the next.
    index.cp.niter, index.pq.cp.niter = 8, 5
    index.cp.max_points_per_centroid = index.pq.cp.max_points_per_centroid = 64
    index.cp.min_points_per_centroid = index.pq.cp.min_points_per_centroid = 1  # no warnings on stderr about small segments
    sample = np.sort(np.random.default_rng(_SEED).choice(rows, tiers.training_rows(rows), replace=False))
    # Deletions may leave a handful of rows: FAISS wants one for each of a code's 16 values at least, so they are given again.
    sample = np.resize(sample, max(len(sample), _LEAST_TRAINING_ROWS))
    index.train(vectors[sample].astype(np.float32))
    index.pq.sync_transposed_centroids()  # a fifth less time for the coding
    decoder = faiss.IndexScalarQuantizer(dimension, faiss.ScalarQuantizer.QT_fp16)
    for start in range(0, rows, _AT_ONCE):
        _may_go_on(stop)
        index.add(decoder.sa_decode(vectors[start : start + _AT_ONCE].view(np.uint8)))  # by FAISS: in half of numpy's time
    return index


def _asked(path: Path, dimension: int, rows: int, index: faiss.IndexIVFPQFastScan) -> NDArray[np.float32]:
    some = np.random.default_rng(_SEED).choice(rows, denoising.ROWS_OF_A_COMPONENT * dimension, replace=False)
    vectors = np.memmap(path, dtype="<f2", mode="r", shape=(rows, dimension))[np.sort(some)].astype(np.float32)
    coding: Any = index.pq  # the stubs know only the C++ signatures
    return denoising.learn(vectors, coding.decode(coding.compute_codes(vectors)))


def _write_bytes(path: Path, data: bytes | memoryview) -> None:
    with path.open("wb") as file:
        file.write(data)


def _may_go_on(stop: Callable[[], bool]) -> None:
    if stop():
        raise InterruptedError("the work on a segment was told to stop")
