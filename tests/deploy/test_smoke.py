"""The smoke check as an operator runs it: as a script, with nothing but the standard library."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path


def smoke(root: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Without site-packages (-S), so that an import of any other package ends it."""
    command = [sys.executable, "-S", "-B", str(root / "deploy" / "smoke.py"), *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)


def test_it_needs_only_the_standard_library(root: Path) -> None:
    ended = smoke(root, "--help")
    assert ended.returncode == 0, ended.stderr
    assert "Drive every endpoint" in ended.stdout


def test_no_service_is_a_failure(root: Path) -> None:
    ended = smoke(root, "http://127.0.0.1:9")
    assert ended.returncode == 1
    assert ended.stdout.startswith("FAIL  GET /v1/modalities: ")


def test_a_folder_without_the_samples_is_told(root: Path, tmp_path: Path) -> None:
    ended = smoke(root, "http://127.0.0.1:9", "--examples", str(tmp_path))
    assert ended.returncode == 1
    assert "elephant.jpg is missing: name the folder by --examples" in ended.stdout
