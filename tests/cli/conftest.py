from __future__ import annotations

import json
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from bindery.cli.main import main
from tests.toybundle import build_toy_bundle


@dataclass(frozen=True)
class Outcome:
    code: int
    out: bytes
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)


Run = Callable[..., Outcome]


@pytest.fixture(scope="session")
def toy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_toy_bundle(tmp_path_factory.mktemp("toy"))


@pytest.fixture
def run(toy: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfdbinary: pytest.CaptureFixture[bytes]) -> Run:
    """The command line through its entry, as the console script calls it."""
    monkeypatch.setenv("BINDERY_BUNDLE", str(toy))
    monkeypatch.setenv("BINDERY_DATA_DIR", str(tmp_path / "data"))
    monkeypatch.setenv("BINDERY_THREADS", "1")

    def command(*arguments: str | Path) -> Outcome:
        monkeypatch.setattr(sys, "argv", ["bindery", *map(str, arguments)])
        capfdbinary.readouterr()
        with pytest.raises(SystemExit) as left:
            main()
        captured = capfdbinary.readouterr()
        code = left.value.code
        return Outcome(code if isinstance(code, int) else 0, captured.out, captured.err.decode())

    return command
