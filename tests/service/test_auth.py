"""Keys at the door of a real server: who is let in, who is told what, and that no key is ever written down."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest
from fastapi.routing import APIRoute

from bindery.errors import BinderyError
from bindery.keys import Key, digest, new_key, row_text
from bindery.settings import Settings
from service import page
from service.app import ROUTERS
from service.auth import scope_of
from tests.service.conftest import served

SECRETS = {name: new_key() for name in ("reader", "writer", "both", "admin", "rated", "narrow")}
ROWS = {
    "reader": {"scopes": ["read"]},
    "writer": {"scopes": ["write"]},
    "both": {"scopes": ["read", "write"]},
    "admin": {"scopes": ["admin"]},
    "rated": {"scopes": ["read"], "requests_per_minute": 3},
    "narrow": {"scopes": ["read"], "inflight": 1},
}
TEXT = {"inputs": ["a dog"]}


def bearer(name: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {SECRETS[name]}"}


@pytest.fixture(scope="module")
def keyed(toy_settings: Settings, tmp_path_factory: pytest.TempPathFactory) -> Iterator[httpx.Client]:
    folder = tmp_path_factory.mktemp("keyed")
    file = folder / "keys.toml"
    rows = [Key.model_validate({"name": name, "sha256": digest(SECRETS[name]), **row}) for name, row in ROWS.items()]
    file.write_text("\n".join(row_text(row) for row in rows))
    settings = toy_settings.model_copy(
        update={"keys_file": file, "data_dir": folder / "data", "log_level": "debug", "cors_origins": ("https://app.example",)}
    )
    with served(settings) as address, httpx.Client(base_url=address, timeout=60) as client:
        yield client


def code(answer: httpx.Response) -> tuple[int, str]:
    assert answer.headers["content-type"] == "application/problem+json"
    return answer.status_code, answer.json()["code"]


def test_without_a_key_only_health_and_pages_answer(keyed: httpx.Client) -> None:
    for path in ("/livez", "/readyz", "/metrics", "/", "/docs", "/openapi.json", "/app.js", "/style.css"):
        assert keyed.get(path).status_code == 200, path
    refused = keyed.get("/v1/models")
    assert code(refused) == (401, "missing_key")
    assert refused.headers["www-authenticate"] == 'Bearer realm="bindery"'
    assert code(keyed.post("/v1/embed/text", json=TEXT)) == (401, "missing_key")
    assert code(keyed.delete("/v1/collections/x")) == (401, "missing_key")
    assert code(keyed.get("/v1/nothing")) == (401, "missing_key")


@pytest.mark.parametrize("value", ["Bearer", "Bearer wrong", "Basic dXNlcjpwYXNz", "Bearer \xff\xfe", "token", "x" * 5000])
def test_a_wrong_key_is_refused(keyed: httpx.Client, value: str) -> None:
    refused = keyed.get("/v1/models", headers={"Authorization": value.encode("latin-1")})
    assert code(refused) == (401, "invalid_key")
    assert 'error="invalid_token"' in refused.headers["www-authenticate"]


def test_a_key_of_the_hash_is_no_key(keyed: httpx.Client) -> None:
    stolen = digest(SECRETS["admin"])
    assert code(keyed.get("/v1/models", headers={"Authorization": f"Bearer {stolen}"})) == (401, "invalid_key")


def test_each_scope_opens_its_calls_and_no_others(keyed: httpx.Client) -> None:
    assert keyed.post("/v1/embed/text", json=TEXT, headers=bearer("reader")).status_code == 200
    assert keyed.post("/v1/embed/text", json=TEXT, headers=bearer("admin")).status_code == 200
    forbidden = keyed.put("/v1/collections/zoo", json={}, headers=bearer("reader"))
    assert code(forbidden) == (403, "forbidden")
    assert 'error="insufficient_scope", scope="write"' in forbidden.headers["www-authenticate"]
    assert keyed.put("/v1/collections/zoo", json={}, headers=bearer("writer")).status_code == 201
    item = {"items": [{"id": "n", "modality": "text", "text": "a note"}]}
    assert keyed.post("/v1/collections/zoo/items", json=item, headers=bearer("writer")).status_code == 200
    assert code(keyed.post("/v1/collections/zoo/search", json={"text": "x"}, headers=bearer("writer"))) == (403, "forbidden")
    assert keyed.post("/v1/collections/zoo/search", json={"text": "x"}, headers=bearer("both")).status_code == 200
    assert keyed.get("/v1/collections/zoo/items/n", headers=bearer("reader")).status_code == 200
    assert code(keyed.delete("/v1/models/toy", headers=bearer("both"))) == (403, "forbidden")
    assert keyed.delete("/v1/collections/zoo", headers=bearer("admin")).status_code == 204


READ, WRITE, ADMIN = "read", "write", "admin"


@pytest.mark.parametrize(
    ("method", "path", "scope"),
    [
        ("POST", "/v1/embed/audio", READ),
        ("POST", "/v1/embeddings", READ),
        ("POST", "/v1/classify/image", READ),
        ("POST", "/v1/similarity", READ),
        ("POST", "/v1/collections/c/search", READ),
        ("GET", "/v1/collections/c/items/a/b", READ),
        ("PUT", "/v1/label-sets/x", WRITE),
        ("POST", "/v1/collections/c/items", WRITE),
        ("POST", "/v1/collections/c/items/delete", WRITE),
        ("PATCH", "/v1/collections/c/items/search", WRITE),
        ("DELETE", "/v1/collections/c/search", WRITE),
        ("POST", "/v1/collections/c/items/x/search", WRITE),
        ("POST", "/v1/jobs", WRITE),
        ("POST", "/v1/jobs/3f0c/cancel", WRITE),
        ("GET", "/v1/jobs/3f0c/events", READ),
        ("PUT", "/v1/models/m", ADMIN),
        ("POST", "/v1/something-new", ADMIN),
        ("POST", "/v1", ADMIN),
        ("POST", "/v1/embed/audio/x", ADMIN),
        ("OPTIONS", "/v1/embed/audio", None),
        ("GET", "/livez", None),
    ],
)
def test_every_call_has_its_scope(method: str, path: str, scope: str | None) -> None:
    assert scope_of(method, path) == scope


def test_no_route_is_open_by_oversight() -> None:
    routes = [route for router in (*ROUTERS, page.router) for route in router.routes if isinstance(route, APIRoute)]
    unguarded = {route.path for route in routes for method in route.methods if scope_of(method, route.path) is None}
    assert unguarded == {"/livez", "/readyz", "/metrics", "/docs"}
    assert any(scope_of(method, route.path) == "write" for route in routes for method in route.methods)


def test_the_document_tells_the_scheme_the_scopes_and_the_refusals(keyed: httpx.Client, client: httpx.Client) -> None:
    document = keyed.get("/openapi.json").json()
    assert document["components"]["securitySchemes"] == {"key": {"type": "http", "scheme": "bearer", "description": "an API key"}}
    operation = document["paths"]["/v1/embed/{modality}"]["post"]
    assert operation["security"] == [{"key": []}]
    assert "Scope of the key: `read`" in operation["description"]
    assert {"401", "403", "429"} <= set(operation["responses"])
    assert "security" not in document["paths"]["/livez"]["get"]
    free = client.get("/openapi.json").json()["paths"]["/v1/embed/{modality}"]["post"]
    assert free["security"] == [{}, {"key": []}]


def test_the_openai_client_sends_its_key(keyed: httpx.Client) -> None:
    base = f"{keyed.base_url}/v1"
    with openai.OpenAI(base_url=base, api_key=SECRETS["reader"], max_retries=0) as client:
        assert len(client.embeddings.create(model="toy", input="a dog").data) == 1
    with openai.OpenAI(base_url=base, api_key="wrong", max_retries=0) as client, pytest.raises(openai.AuthenticationError, match="no key"):
        client.embeddings.create(model="toy", input="a dog")


def test_the_rate_of_a_key_is_held_and_told(keyed: httpx.Client) -> None:
    answers = [keyed.get("/v1/models", headers=bearer("rated")) for _ in range(4)]
    assert [answer.status_code for answer in answers] == [200, 200, 200, 429]
    assert [answer.headers["ratelimit"].split(";")[1] for answer in answers] == ["r=2", "r=1", "r=0", "r=0"]
    assert {answer.headers["ratelimit-policy"] for answer in answers} == {'"requests";q=3;w=60'}
    refused = answers[-1]
    assert code(refused) == (429, "rate_limited")
    assert 15_000 < int(refused.headers["retry-after-ms"]) <= 20_000
    assert 16 <= int(refused.headers["retry-after"]) <= 20
    assert refused.json()["retryable"] is True
    assert keyed.get("/v1/models", headers=bearer("reader")).status_code == 200
    with (
        openai.OpenAI(base_url=f"{keyed.base_url}/v1", api_key=SECRETS["rated"], max_retries=0) as client,
        pytest.raises(openai.RateLimitError),
    ):
        client.embeddings.create(model="toy", input="a dog")


def test_the_inflight_share_of_a_key_is_held_and_given_back(keyed: httpx.Client) -> None:
    begun, release = threading.Event(), threading.Event()

    def slow() -> Iterator[bytes]:
        yield b'{"inputs": '
        begun.set()
        release.wait(30)
        yield b'["a dog"]}'

    first: list[httpx.Response] = []
    headers = bearer("narrow") | {"Content-Type": "application/json"}
    worker = threading.Thread(target=lambda: first.append(httpx.post(f"{keyed.base_url}/v1/embed/text", content=slow(), headers=headers)))
    worker.start()
    assert begun.wait(10)
    second = _until(lambda: keyed.get("/v1/models", headers=bearer("narrow")), 429)
    assert code(second) == (429, "too_many_inflight")
    assert second.headers["ratelimit"] == '"inflight";r=0'
    assert int(second.headers["retry-after-ms"]) > 0
    release.set()
    worker.join(30)
    assert first[0].status_code == 200
    assert _until(lambda: keyed.get("/v1/models", headers=bearer("narrow")), 200).headers["ratelimit"] == '"inflight";r=0'


def _until(call: Any, status: int) -> httpx.Response:
    """The first answer of this status; what is on its way may need a moment to arrive."""
    for _ in range(100):
        answer: httpx.Response = call()
        if answer.status_code == status:
            return answer
    raise AssertionError(f"never answered {status}")


def test_the_allowed_origin_is_let_in_with_its_key_and_no_other(keyed: httpx.Client) -> None:
    asked = {"Access-Control-Request-Method": "POST", "Access-Control-Request-Headers": "authorization,content-type"}
    preflight = keyed.options("/v1/embed/text", headers={"Origin": "https://app.example", **asked})
    assert preflight.status_code == 200
    assert preflight.headers["access-control-allow-origin"] == "https://app.example"
    assert "authorization" in preflight.headers["access-control-allow-headers"].lower()
    assert "access-control-allow-credentials" not in preflight.headers
    refused = keyed.get("/v1/models", headers={"Origin": "https://app.example"})
    assert refused.status_code == 401
    assert refused.headers["access-control-allow-origin"] == "https://app.example", "a page must be able to read why"
    told = keyed.get("/v1/models", headers={"Origin": "https://app.example", **bearer("reader")})
    assert "RateLimit" in told.headers["access-control-expose-headers"]
    for origin in ("https://evil.example", "http://app.example", "https://app.example.evil.example", "null"):
        answer = keyed.get("/v1/models", headers={"Origin": origin, **bearer("reader")})
        assert "access-control-allow-origin" not in answer.headers
        assert keyed.options("/v1/embed/text", headers={"Origin": origin, **asked}).status_code == 400


def test_no_key_is_written_down(toy_settings: Settings, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    secret, wrong = new_key(), new_key()
    row = Key(name="someone", sha256=digest(secret), scopes=("read",))
    settings = toy_settings.model_copy(update={"keys": (row,), "data_dir": tmp_path, "log_level": "debug"})
    with served(settings) as address, httpx.Client(base_url=address) as client:
        answers = [
            client.post("/v1/embed/text", json=TEXT, headers={"Authorization": f"Bearer {secret}"}),
            client.put("/v1/collections/x", json={}, headers={"Authorization": f"Bearer {secret}"}),
            client.post("/v1/embed/text", json=TEXT, headers={"Authorization": f"Bearer {wrong}"}),
            client.get("/metrics"),
        ]
    assert [answer.status_code for answer in answers] == [200, 403, 401, 200]
    written = "".join(capfd.readouterr()) + "".join(answer.text + str(answer.headers) for answer in answers)
    assert "someone" in written, "the log says whose key it was"
    for hidden in (secret, wrong, digest(secret), digest(wrong)):
        assert hidden not in written
    assert secret not in repr(settings)


def test_metrics_can_be_closed(toy_settings: Settings, tmp_path: Path) -> None:
    row = Key(name="reader", sha256=digest(SECRETS["reader"]), scopes=("read",))
    settings = toy_settings.model_copy(update={"keys": (row,), "metrics_open": False, "data_dir": tmp_path})
    with served(settings) as address, httpx.Client(base_url=address) as client:
        assert code(client.get("/metrics")) == (401, "missing_key")
        assert client.get("/metrics", headers=bearer("reader")).status_code == 200
        assert client.get("/readyz").status_code == 200


def test_without_keys_an_address_may_be_given_a_share(toy_settings: Settings, tmp_path: Path) -> None:
    settings = toy_settings.model_copy(update={"address_requests_per_minute": 2, "data_dir": tmp_path})
    with served(settings) as address, httpx.Client(base_url=address) as client:
        assert [client.get("/v1/models").status_code for _ in range(3)] == [200, 200, 429]
        assert client.get("/livez").status_code == 200


def test_the_codes_are_those_of_the_contract() -> None:
    rows: dict[str, type[BinderyError]] = {}
    for cls in _leaves(BinderyError):
        rows[cls.code] = cls
    wanted = {"missing_key": 401, "invalid_key": 401, "forbidden": 403, "rate_limited": 429, "too_many_inflight": 429}
    assert {name: rows[name].status for name in wanted} == wanted


def _leaves(cls: type[BinderyError]) -> Iterator[type[BinderyError]]:
    for child in cls.__subclasses__():
        yield child
        yield from _leaves(child)
