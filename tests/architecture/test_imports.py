"""Imports run one way. import-linter reads the code (`make check`); these look at what a fresh process really loads."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize(
    ("module", "forbidden"),
    [
        ("service.app", {"torch", "transformers", "training", "export"}),
        ("bindery.embedder", {"torch", "transformers", "fastapi", "starlette", "service", "training", "export"}),
        ("bindery.search", {"torch", "transformers", "fastapi", "starlette", "service"}),
        ("bindery.cli.main", {"torch", "onnxruntime", "av", "faiss", "fastapi", "numpy"}),
        # What decodes strangers' files opens no connection, and cannot even name the module that does.
        ("bindery.kinds", {"bindery.media.fetch", "http.client", "urllib.request", "ssl"}),
        ("bindery", {"torch", "numpy", "onnxruntime", "av", "pydantic"}),
    ],
)
def test_importing_a_room_does_not_load_what_it_must_not_know(module: str, forbidden: set[str]) -> None:
    code = f"import sys, {module}; print('\\n'.join(sys.modules))"
    loaded = set(subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split())
    assert loaded & forbidden == set()


def test_only_the_fetcher_and_the_load_generator_can_open_connections() -> None:
    """`socket` is also how the decoders' pipes are made; nobody else asks it for a connection or a name."""
    asking = re.compile(
        r"create_connection|open_connection|getaddrinfo|\.connect\(\(|AF_INET|http\.client|urllib\.request|import (httpx|requests|aiohttp)"
    )
    found = {
        path.relative_to(ROOT).as_posix()
        for room in ("bindery", "service")
        for path in (ROOT / room).rglob("*.py")
        if asking.search(path.read_text())
    }
    listening = "service/fronts/supervisor.py"  # names the family of the address that it listens on, and no more
    assert found == {"bindery/media/fetch.py", "bindery/traffic/client.py", listening}
    assert asking.findall((ROOT / listening).read_text().replace("AF_INET", "")) == []
