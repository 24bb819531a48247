"""Imports run one way. import-linter reads the code (`make check`); these look at what a fresh process really loads."""

from __future__ import annotations

import subprocess
import sys

import pytest


@pytest.mark.parametrize(
    ("module", "forbidden"),
    [
        ("service.app", {"torch", "transformers", "training", "export"}),
        ("bindery.embedder", {"torch", "transformers", "fastapi", "starlette", "service", "training", "export"}),
        ("bindery.search", {"torch", "transformers", "fastapi", "starlette", "service"}),
        ("bindery.cli.main", {"torch", "onnxruntime", "av", "faiss", "fastapi", "numpy"}),
        ("bindery", {"torch", "numpy", "onnxruntime", "av", "pydantic"}),
    ],
)
def test_importing_a_room_does_not_load_what_it_must_not_know(module: str, forbidden: set[str]) -> None:
    code = f"import sys, {module}; print('\\n'.join(sys.modules))"
    loaded = set(subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split())
    assert loaded & forbidden == set()
