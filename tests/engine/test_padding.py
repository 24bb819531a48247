from __future__ import annotations

import random

from bindery.engine.padding import alike


def test_short_ones_go_together_and_long_ones_apart() -> None:
    assert alike([70, 3, 8, 40, 9, 12, 20], int) == [[3, 8], [9, 12], [20], [40], [70]]
    assert alike([3, 3, 3], int) == [[3, 3, 3]]
    assert alike([], int) == []


def test_nothing_is_lost_and_padding_is_bounded() -> None:
    lengths = random.Random(7).choices(range(1, 500), k=64)
    groups = alike(lengths, int)
    assert sorted(lengths) == [length for group in groups for length in group]
    assert all(max(group) <= max(8, 1.5 * min(group)) for group in groups)
