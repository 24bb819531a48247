"""The bare libraries that `search.py` measures beside bindery: each builds an index of the stored images and answers single queries.

Each peer is a generator of settings, from the cheapest to the dearest: the first that reaches the recall that is asked for is the one
that is told. One thread throughout.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import faiss
import hnswlib
import numpy as np
from clustered import DIMENSION, TOP, Floats, stored
from usearch.index import Index

Answer = Callable[[Floats], list[int]]
"""One query ``(768,)`` → its best rows."""
Setting = tuple[str, Answer]
Built = tuple[int, Callable[[], Iterator[Setting]]]
"""Bytes a row that the index itself counts, and the settings to try."""

_METRIC = faiss.METRIC_INNER_PRODUCT
_LINKS = 32
_ADD_EFFORT = 100  # of graphs; 200 builds in twice the time and needs a little less effort a query


def _faiss_answer(index: Any, **parameters: Any) -> Answer:
    def answer(query: Floats) -> list[int]:
        return index.search(query[None, :], TOP, **parameters)[1][0].tolist()  # type: ignore[no-any-return]

    return answer


def _fill(index: Any, path: Path, rows: int, train: int) -> Any:
    if train:
        index.train(_sample(path, rows, train))
    for _, piece in stored(path, rows):
        index.add(piece)
    return index


def _sample(path: Path, rows: int, count: int) -> Floats:
    """Rows are drawn in random order, so the first are as good as any."""
    return np.concatenate([piece for _, piece in stored(path, min(rows, count))])


def flat(path: Path, rows: int) -> Built:
    index = _fill(faiss.IndexFlatIP(DIMENSION), path, rows, 0)
    return DIMENSION * 4, lambda: iter([("", _faiss_answer(index))])


def flat_sq8(path: Path, rows: int) -> Built:
    index = _fill(faiss.IndexScalarQuantizer(DIMENSION, faiss.ScalarQuantizer.QT_8bit, _METRIC), path, rows, 20_000)
    return DIMENSION, lambda: iter([("", _faiss_answer(index))])


def ivf_sq8(path: Path, rows: int) -> Built:
    lists = 1024 if rows >= 100_000 else 256
    quantizer = faiss.IndexFlatIP(DIMENSION)
    index = faiss.IndexIVFScalarQuantizer(quantizer, DIMENSION, lists, faiss.ScalarQuantizer.QT_8bit, _METRIC)
    index.cp.niter = 10
    _fill(index, path, rows, 64 * lists)

    def settings() -> Iterator[Setting]:
        probes = 8
        while probes <= lists:
            yield f"{probes} of {lists} lists", _faiss_answer(index, params=faiss.SearchParametersIVF(nprobe=probes))
            probes *= 2

    return DIMENSION + 16, settings


def pq4_fast_scan(path: Path, rows: int) -> Built:
    """4-bit codes of all rows, the best compared again as float16: what bindery's segments are made of, bare."""
    codes = _fill(faiss.IndexPQFastScan(DIMENSION, DIMENSION // 4, 4, _METRIC), path, rows, 20_000)
    exact = _fill(faiss.IndexScalarQuantizer(DIMENSION, faiss.ScalarQuantizer.QT_fp16, _METRIC), path, rows, 0)
    refined = faiss.IndexRefine(codes, exact)

    def settings() -> Iterator[Setting]:
        for factor in (8, 12, 16, 24, 32, 64, 96, 128, 192, 256, 384, 512):
            yield f"{factor * TOP} compared again", _faiss_answer(refined, params=faiss.IndexRefineSearchParameters(k_factor=factor))

    return DIMENSION // 8 + DIMENSION * 2, settings


def hnswlib_m32(path: Path, rows: int) -> Built:
    index = hnswlib.Index(space="ip", dim=DIMENSION)
    index.init_index(max_elements=rows, ef_construction=_ADD_EFFORT, M=_LINKS)
    index.set_num_threads(1)
    for start, piece in stored(path, rows):
        index.add_items(piece, np.arange(start, start + len(piece)), num_threads=1)

    def settings() -> Iterator[Setting]:
        for effort in (32, 48, 64, 96, 128, 192, 256, 384, 512, 1024, 2048):
            index.set_ef(effort)
            yield f"ef {effort}", lambda query: index.knn_query(query, k=TOP, num_threads=1)[0][0].tolist()

    return DIMENSION * 4 + _LINKS * 2 * 4 + 20, settings


def usearch_bf16(path: Path, rows: int) -> Built:
    index = Index(ndim=DIMENSION, metric="ip", dtype="bf16", connectivity=_LINKS, expansion_add=_ADD_EFFORT)
    for start, piece in stored(path, rows):
        index.add(np.arange(start, start + len(piece)), piece, threads=1)

    def settings() -> Iterator[Setting]:
        for effort in (32, 48, 64, 96, 128, 192, 256, 384, 512, 1024, 2048):
            index.expansion_search = effort
            yield f"expansion {effort}", lambda query: index.search(query, TOP, threads=1).keys.tolist()

    return DIMENSION * 2 + _LINKS * 2 * 4 + 20, settings


PEERS: dict[str, Callable[[Path, int], Built]] = {
    "faiss flat": flat,
    "faiss flat SQ8": flat_sq8,
    "faiss IVF SQ8": ivf_sq8,
    "faiss PQ4 fast-scan + fp16": pq4_fast_scan,
    "hnswlib": hnswlib_m32,
    "usearch bf16": usearch_bf16,
}
GRAPHS = ("hnswlib", "usearch bf16")
"""Their building takes minutes at 100,000 rows and would take half an hour at a million."""
