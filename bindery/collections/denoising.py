"""Denoising: what a query asks of codes, so that the errors of the codes disturb its ranking least.

A coded row ``c`` is its vector ``x`` and an error. The error points anywhere, also where the vectors of a modality hardly differ from
one another; a query of another modality has most of its length there, and so ranks by noise. The best linear guess of ``x`` is
``A c + b`` (a Wiener filter, learned from rows and their codes), and ``q · A c`` is ``(A' q) · c``: the same scan with another query.
The scores of the rows that are compared at last are exact all the same. Measured on 100,000 pictures (`bench/search.py`): texts
find as much comparing 230 rows as with 3,070 before. Pictures that look for pictures would need 120 instead of 80, so they ask as they are.
"""

from __future__ import annotations

import numpy as np

from bindery.collections.products import Linear
from bindery.vectors import Vectors

ROWS_OF_A_COMPONENT = 10
"""So many rows are learned from; with fewer there is nothing to learn safely."""
_RIDGE = 0.02  # of the mean variance of a component, so that directions with too few examples are not guessed


def crosses(modality: str, query_modality: str) -> bool:
    """Whether queries of ``query_modality`` ("": it is not known) are denoised where they look for ``modality``."""
    return modality != query_modality


def enough(rows: int, dimension: int) -> bool:
    return rows >= ROWS_OF_A_COMPONENT * dimension


def learn(rows: Vectors, coded: Vectors) -> Vectors:
    """``A'`` ``(d, d)``, from vectors ``(n, d)`` and what their codes say they are ``(n, d)``; ``A' @ q`` is asked of the codes."""
    middle = coded.mean(axis=0)
    columns = np.ascontiguousarray(coded.T)
    product = Linear(columns)
    seen = product(columns) - len(coded) * np.outer(middle, middle)  # about their means, without copies of all of them
    wanted = product(np.ascontiguousarray(rows.T)).T - len(coded) * np.outer(middle, rows.mean(axis=0))
    seen[np.diag_indices(len(seen))] += _RIDGE * np.trace(seen) / len(seen) + np.finfo(np.float32).tiny
    return np.linalg.solve(seen, wanted).astype(np.float32)
