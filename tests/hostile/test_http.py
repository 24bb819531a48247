"""The hostile set through the real service: each file gets its documented answer, and the service stays ready."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import httpx
import numpy as np
import pytest

from bindery.limits import Limits
from bindery.settings import Settings
from tests.hostile.make import Hostile, hostile_set
from tests.service.conftest import served
from tests.toybundle import build_toy_bundle

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[httpx.Client]:
    bundle = build_toy_bundle(tmp_path_factory.mktemp("bundles") / "toy")
    settings = Settings(
        bundle=str(bundle),
        data_dir=tmp_path_factory.mktemp("data"),
        threads=1,
        log_level="error",
        decode_workers=2,
        limits=Limits(decode_seconds=120),
    )
    with served(settings) as address, httpx.Client(base_url=address, timeout=180) as client:
        yield client


@pytest.mark.parametrize("hostile", list(hostile_set()), ids=lambda hostile: f"{hostile.modality}-{hostile.name}")
def test_a_hostile_file_gets_its_documented_answer_over_http(client: httpx.Client, hostile: Hostile) -> None:
    answer = client.post(f"/v1/embed/{hostile.modality}", files={"file": (hostile.name, hostile.make())})
    if answer.status_code == 200:
        assert "ok" in hostile.codes
        assert np.isfinite(answer.json()["items"][0]["embedding"]).all()
    else:
        assert 400 <= answer.status_code < 500, answer.text
        assert answer.json()["code"] in hostile.codes
        assert str(Path.home()) not in answer.text
    assert client.get("/readyz").status_code == 200
