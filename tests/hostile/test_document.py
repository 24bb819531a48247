"""docs/security.md names tests: they must exist, or the page would promise what nobody checks."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs/security.md").read_text()


def test_every_test_that_the_page_names_exists() -> None:
    named = set(re.findall(r"`(test_\w+)`", PAGE))
    written = {name for path in (ROOT / "tests").rglob("test_*.py") for name in re.findall(r"def (test_\w+)", path.read_text())}
    assert len(named) > 50
    assert named <= written, sorted(named - written)


def test_all_seventy_failures_are_answered() -> None:
    numbers: set[int] = set()
    for first, last in re.findall(r"^(\d+)\.(?: – (\d+)\.)? ", PAGE, flags=re.MULTILINE):
        numbers |= set(range(int(first), int(last or first) + 1))
    assert numbers == set(range(1, 71))
