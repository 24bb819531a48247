from __future__ import annotations

import sys
from pathlib import Path

import pytest

from tests.cli.conftest import Run


def test_a_picture_that_cannot_be_drawn_is_refused_before_the_load(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "bindery.traffic.plot", raising=False)
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    refused = run("bench", "load", "http://127.0.0.1:9", "--duration", "600", "--plot", tmp_path / "load.png")
    assert refused.code == 1
    assert refused.err.startswith("error[invalid_parameter]: --plot needs matplotlib, which is not installed")


def test_each_run_asks_for_something_else_and_says_how_to_ask_for_the_same(run: Run) -> None:
    """So that a second run against the same server is not answered by its cache."""
    nobody = ("bench", "load", "http://127.0.0.1:9", "--rate", "1", "--duration", "0.1")
    seeds = [run(*nobody).out.decode().splitlines()[0].rpartition("--seed ")[2] for _ in range(2)]
    assert seeds[0] != seeds[1]
    assert run(*nobody, "--seed", seeds[0]).out.decode().splitlines()[0].endswith(f"--seed {seeds[0]}")
