"""The service with its collections in Milvus: the same calls, and what it answers when Milvus is away."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from milvus_lite.adapter.grpc.server import start_server_in_thread

from bindery.settings import Settings
from tests.service.conftest import served


@pytest.fixture
def milvus(tmp_path: Path) -> Iterator[tuple[str, object]]:
    server, db, port = start_server_in_thread(str(tmp_path / "lite"), host="127.0.0.1", port=0)
    yield f"http://127.0.0.1:{port}", server
    server.stop(grace=0).wait()
    db.close()


def test_the_same_calls_work_and_its_absence_is_told(toy_settings: Settings, milvus: tuple[str, object], tmp_path: Path) -> None:
    uri, server = milvus
    changes = {"store": "milvus", "milvus_uri": uri, "milvus_timeout_seconds": 2.0, "data_dir": tmp_path / "data"}
    with served(toy_settings.model_copy(update=changes)) as address, httpx.Client(base_url=address, timeout=60) as client:
        assert client.put("/v1/collections/zoo", json={"backend": "local"}).json()["code"] == "invalid_parameter"
        made = client.put("/v1/collections/zoo", json={"fields": {"place": "keyword"}, "backend": "milvus"})
        assert (made.status_code, made.json()["backend"], made.json()["disk_bytes"]) == (201, "milvus", None)

        items = [{"modality": "text", "text": word, "id": word, "metadata": {"place": "yard"}} for word in ("dog", "rain")]
        stored = client.post("/v1/collections/zoo/items", json={"items": items})
        assert stored.status_code == 200, stored.text
        found = client.post("/v1/collections/zoo/search", json={"text": "rain", "filter": {"place": {"eq": "yard"}}}).json()
        assert found["hits"][0]["id"] == "rain"
        assert found["plan"]["store"] == "milvus"
        assert client.get("/v1/collections/zoo").json()["counts"] == {"text": 2}

        assert client.put("/v1/aliases/now", json={"collection": "zoo"}).status_code == 200
        assert client.get("/v1/collections/now/items/dog").json()["metadata"] == {"place": "yard"}
        assert client.put("/v1/label-sets/pets", json={"labels": ["dog", "cat"]}).status_code == 200
        refused = client.post("/v1/collections/zoo/snapshot")
        assert (refused.status_code, refused.json()["code"]) == (422, "not_offered")

        server.stop(grace=0).wait()  # type: ignore[attr-defined]
        for answer in (client.get("/v1/collections"), client.post("/v1/collections/zoo/search", json={"text": "rain"})):
            assert (answer.status_code, answer.json()["code"]) == (503, "store_unavailable")
            assert uri.removeprefix("http://") not in answer.text
            assert "retry-after" in answer.headers
        assert client.post("/v1/embed/text", json={"inputs": ["rain"]}).status_code == 200
