"""The query that is asked of codes ranks rows better than the query itself, where codes err alike for rows that differ."""

from __future__ import annotations

import numpy as np

from bindery.collections import denoising
from bindery.vectors import normalize

DIMENSION, ROWS = 48, 4000


def test_a_query_from_where_rows_hardly_differ_finds_more_by_codes_when_it_is_denoised() -> None:
    random = np.random.default_rng(0)
    spread = np.where(np.arange(DIMENSION) < 16, 1.0, 0.02)  # rows differ in sixteen components only
    rows = normalize(random.standard_normal((ROWS, DIMENSION)) * spread)
    coded = rows + 0.06 * random.standard_normal((ROWS, DIMENSION))  # the error of the codes points anywhere
    some = np.arange(denoising.ROWS_OF_A_COMPONENT * DIMENSION)
    asked = denoising.learn(rows[some].astype(np.float32), coded[some].astype(np.float32))
    queries = normalize(random.standard_normal((200, DIMENSION)) * np.where(np.arange(DIMENSION) < 16, 0.3, 1.0))

    def recall(scores: np.ndarray) -> float:
        truth = np.argsort(-(queries @ rows.T), axis=1)[:, :10]
        found = np.argsort(-scores, axis=1)[:, :40]
        return float(np.mean([np.isin(right, got).mean() for right, got in zip(truth, found, strict=True)]))

    plain, denoised = recall(queries @ coded.T), recall((queries @ asked.T) @ coded.T)
    assert denoised > plain + 0.2


def test_codes_without_error_are_asked_the_query_itself() -> None:
    rows = normalize(np.random.default_rng(1).standard_normal((2000, 8))).astype(np.float32)
    asked = denoising.learn(rows, rows)
    assert np.abs(asked - np.eye(8)).max() < 0.05


def test_too_few_rows_teach_nothing() -> None:
    assert denoising.enough(480, 48)
    assert not denoising.enough(479, 48)
