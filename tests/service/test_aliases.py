"""`/v1/aliases` over HTTP."""

from __future__ import annotations

import httpx


def test_an_alias_leads_to_its_collection_wherever_a_name_is_taken(client: httpx.Client) -> None:
    for name in ("alias-old", "alias-new"):
        client.put(f"/v1/collections/{name}", json={}).raise_for_status()
        client.post(f"/v1/collections/{name}/items", json={"items": [{"id": name, "modality": "text", "text": name}]}).raise_for_status()
    try:
        for name in ("alias-old", "alias-new", "alias-old"):
            answer = client.put("/v1/aliases/alias-now", json={"collection": name})
            assert (answer.status_code, answer.json()) == (200, {"name": "alias-now", "collection": name})
            hits = client.post("/v1/collections/alias-now/search", json={"text": "x"}).json()["hits"]
            assert [hit["id"] for hit in hits] == [name]
            assert client.get("/v1/collections/alias-now").json()["name"] == name
            assert client.get(f"/v1/collections/alias-now/items/{name}").status_code == 200
        assert {"name": "alias-now", "collection": "alias-old"} in client.get("/v1/aliases").json()["aliases"]
        assert client.put("/v1/aliases/alias-new", json={"collection": "alias-old"}).json()["code"] == "already_exists"
        assert client.put("/v1/collections/alias-now", json={}).status_code == 409
        assert client.put("/v1/aliases/x", json={"collection": "nothing"}).json()["code"] == "unknown_collection"
        assert client.delete("/v1/collections/alias-now").status_code in (404, 409)
        assert client.get("/v1/collections/alias-old").status_code == 200
    finally:
        assert client.delete("/v1/aliases/alias-now").status_code == 204
        assert client.delete("/v1/aliases/alias-now").json()["code"] == "unknown_alias"
        for name in ("alias-old", "alias-new"):
            client.delete(f"/v1/collections/{name}")
