from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from milvus_lite.server_manager import server_manager_instance

from bindery.collections import Collection, CollectionStore, Store
from bindery.collections.local import LocalCollection
from bindery.collections.milvus.collection import MilvusCollection
from bindery.collections.milvus.store import MilvusStore
from tests.collections.items import DIMENSION, FIELDS


@pytest.fixture
def local_store(tmp_path: Path) -> Iterator[Store]:
    with Store(tmp_path) as opened:
        yield opened


@pytest.fixture
def store(local_store: Store) -> Store:
    return local_store


@pytest.fixture
def collection_on_disk(local_store: Store) -> LocalCollection:
    return local_store.create("things", space="space-a", dimension=DIMENSION, bundle="toy", fields=FIELDS)


@pytest.fixture
def collection(collection_on_disk: LocalCollection) -> LocalCollection:
    return collection_on_disk


@pytest.fixture(scope="session")
def milvus_uri(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A Milvus Lite that listens on loopback, as a Milvus does."""
    with _milvus_lite(tmp_path_factory.mktemp("milvus") / "lite.db") as uri:
        yield uri


@pytest.fixture(scope="session")
def lasting(tmp_path_factory: pytest.TempPathFactory) -> Iterator[MilvusCollection]:
    """A collection that all tests share, in a Milvus of its own: making one takes it half a second."""
    with _milvus_lite(tmp_path_factory.mktemp("milvus") / "lasting.db") as uri, MilvusStore(uri, timeout_s=60.0) as opened:
        yield opened.create("things", space="space-a", dimension=DIMENSION, bundle="toy", fields=FIELDS)


@contextmanager
def _milvus_lite(path: Path) -> Iterator[str]:
    uri = server_manager_instance.start_and_get_uri(str(path))
    assert uri is not None, "Milvus Lite did not start; its log says why"
    yield uri
    server_manager_instance.release_server(str(path))


@pytest.fixture
def milvus(milvus_uri: str) -> Iterator[MilvusStore]:
    """An empty store in it."""
    with MilvusStore(milvus_uri, timeout_s=60.0) as opened:
        for one in opened.collections():
            opened.delete(one.definition.name)
        for label_set in opened.label_sets():
            opened.delete_label_set(label_set.name)
        yield opened


@pytest.fixture
def in_milvus(lasting: MilvusCollection) -> MilvusCollection:
    """The shared collection, emptied."""
    lasting.delete(filter={"id": {"exists": True}})
    return lasting


@pytest.fixture(params=["local", "milvus"])
def either_store(request: pytest.FixtureRequest) -> CollectionStore:
    """Every store, one after the other: what holds for one holds for all."""
    found: CollectionStore = request.getfixturevalue({"local": "local_store", "milvus": "milvus"}[request.param])
    return found


@pytest.fixture(params=["collection_on_disk", "in_milvus"])
def either(request: pytest.FixtureRequest) -> Collection:
    """A collection of every store."""
    found: Collection = request.getfixturevalue(request.param)
    return found
