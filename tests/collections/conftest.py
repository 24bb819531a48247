from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from bindery.collections import Store
from bindery.collections.local import LocalCollection
from tests.collections.items import DIMENSION, FIELDS


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with Store(tmp_path) as opened:
        yield opened


@pytest.fixture
def collection(store: Store) -> LocalCollection:
    return store.create("things", space="space-a", dimension=DIMENSION, bundle="toy", fields=FIELDS)
