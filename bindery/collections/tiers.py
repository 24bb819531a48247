"""Tiers: how the vectors of one modality are held, by their number.

    flat     up to `EXACT_ROWS`: float16 in memory, every row compared
    ivf_pq   beyond: 4-bit codes in memory, scanned in lists; the best by code are compared again as float16, from the disk

One index for each modality, never one over several. Measured (docs/search.md): a scan over codes loses as little when words
look for pictures as when pictures do, since its error does not depend on where the query lies; graphs do lose there.
"""

from __future__ import annotations

from dataclasses import dataclass

EXACT_ROWS = 20_000
SEGMENT_ROWS = 1_000_000
_ROWS_OF_A_LIST = 1600
_MOST_LISTS = 256
_TRAINING_ROWS = 16_384
_TRAINING_ROWS_OF_A_LIST = 64


@dataclass(frozen=True, slots=True)
class Tiers:
    """When rows move from memory into segments, and how large those become."""

    recall_target: float = 0.98  # of the ten true neighbours, the share that a search by code is to find
    exact_rows: int = EXACT_ROWS
    always_exact: int = 10_000  # so many allowed rows are compared faster than codes of all rows are scanned
    segment_rows: int = SEGMENT_ROWS
    dead_share: float = 0.25  # a segment with more dead rows is built anew
    gpu: bool = False  # segments are scanned on a GPU
    merge_factor: float = 2.0  # an older segment joins a merge when it has at most this many times the rows gathered so far


def lists(rows: int) -> int:
    """Into how many lists that many rows go: a power of two."""
    wanted = max(1, min(_MOST_LISTS, rows // _ROWS_OF_A_LIST))
    return int(1 << (wanted.bit_length() - 1))


def training_rows(rows: int) -> int:
    return min(rows, max(_TRAINING_ROWS, lists(rows) * _TRAINING_ROWS_OF_A_LIST))


def code_parts(dimension: int) -> int:
    """How many parts a vector is cut into; each becomes one 4-bit code."""
    for width in (4, 3, 2):
        if dimension % width == 0:
            return dimension // width
    return dimension
