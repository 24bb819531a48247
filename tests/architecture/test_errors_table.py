from __future__ import annotations

import pickle

import pytest

from bindery.errors import BinderyError, error_table

ROWS = list(error_table())


def test_codes_are_unique() -> None:
    codes = [row.code for row in ROWS]
    assert len(codes) == len(set(codes))


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.code)
def test_a_row_is_complete_and_survives_a_process_border(row: type[BinderyError]) -> None:
    assert 400 <= row.status < 600
    assert row.title
    # 429 means you, 503 means us: only what may pass by itself invites a retry
    assert row.retryable == (row.status in {408, 429, 503, 504})
    error = pickle.loads(pickle.dumps(row("why", pointer="/inputs/0", retry_after_ms=5)))
    assert type(error) is row
    assert (error.detail, error.pointer, error.retry_after_ms) == ("why", "/inputs/0", 5)
