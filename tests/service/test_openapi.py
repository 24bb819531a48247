"""`/openapi.json` is a promise: whatever is sent that it describes, or nearly, is answered with what it documents, and never with a 5xx."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings
from schemathesis import Case, GenerationMode, checks

from bindery.settings import Settings
from service.app import create_app
from tests.e2e.process import serving
from tests.service.conftest import served

HELD = [
    checks.not_a_server_error,
    checks.status_code_conformance,
    checks.content_type_conformance,
    checks.response_headers_conformance,
    checks.response_schema_conformance,
    checks.negative_data_rejection,
]
"""Not held: that whatever fits the schema is taken. A text in place of base64 fits, and is refused with a reason."""

FEW = settings(max_examples=4, deadline=None, database=None, derandomize=True, suppress_health_check=list(HealthCheck))


@pytest.fixture(scope="module")
def asked(toy_settings: Settings, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A server of its own: models and collections come and go as the cases have it. It has room for toys, not for the starter."""
    changes = {"data_dir": tmp_path_factory.mktemp("asked"), "models_memory_bytes": 20_000_000, "log_level": "error"}
    with served(toy_settings.model_copy(update=changes)) as address:
        yield address


@pytest.mark.parametrize("mode", list(GenerationMode), ids=lambda mode: str(mode.value))
def test_a_few_requests_of_each_operation_are_answered_as_documented(asked: str, mode: GenerationMode) -> None:
    schema = schemathesis.openapi.from_url(f"{asked}/openapi.json")
    operations = [found.ok() for found in schema.get_all_operations()]
    assert len(operations) > 40
    for operation in operations:
        if mode is GenerationMode.NEGATIVE and not operation.body:
            continue  # an address alone cannot be wrong: each text may be a name

        @FEW
        @given(case=operation.as_strategy(generation_mode=mode))
        def ask(case: Case) -> None:
            case.call_and_validate(checks=HELD)

        ask()


@pytest.mark.slow
def test_thousands_of_requests_are_answered_as_documented(asked: str, tmp_path: Path) -> None:
    """Beside what is drawn: the examples, each member left out, each bound reached and passed, and calls that follow from others."""
    _ask_thousands(asked, tmp_path)


@pytest.mark.slow
def test_thousands_of_requests_to_several_processes_are_answered_as_documented(toy_bundle: Path, tmp_path: Path) -> None:
    with serving(toy_bundle, tmp_path, http_workers=2, models_memory_bytes=20_000_000, log_level="error") as several:
        _ask_thousands(several.address, tmp_path)
        assert several.metric("bindery_http_workers_replaced_total ") == 0


def _ask_thousands(asked: str, tmp_path: Path) -> None:
    held = ",".join(check.__name__ for check in HELD)
    program = Path(sys.executable).with_name("schemathesis")
    command = [program, "run", f"{asked}/openapi.json", "--checks", held, "--max-examples", "40", "--seed", "7", "--warnings", "off"]
    run = subprocess.run([*command, "--continue-on-failure"], cwd=tmp_path, capture_output=True, text=True, timeout=1200)
    assert run.returncode == 0, run.stdout[-20_000:]


async def test_what_a_server_answers_while_it_starts_is_documented(toy_settings: Settings) -> None:
    app = create_app(toy_settings)  # and never started
    operations = [(path, method, one) for path, methods in app.openapi()["paths"].items() for method, one in methods.items()]
    transport = httpx.ASGITransport(app=app, raise_app_exceptions=True)
    async with httpx.AsyncClient(transport=transport, base_url="http://bindery.test") as client:
        for path, method, operation in operations:
            body = {"json": {}} if "requestBody" in operation else {}
            answer = await client.request(method.upper(), path.replace("{", "").replace("}", ""), **body)
            assert str(answer.status_code) in operation["responses"], (method, path, answer.text)
            if answer.status_code == 503:
                assert f"`{answer.json()['code']}`" in operation["responses"]["503"]["description"], (method, path)
