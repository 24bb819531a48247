"""The smoke check is a script beside its package `checks`; here both are importable as they are for the script."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

sys.path.insert(0, str(ROOT / "deploy"))


@pytest.fixture(scope="session")
def root() -> Path:
    return ROOT
