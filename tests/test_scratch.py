from __future__ import annotations

import errno
import subprocess
import sys
import tempfile
from pathlib import Path
from unittest.mock import Mock

import pytest

from bindery.errors import StorageFull
from bindery.scratch import scratch_folder, sweep

HOLD = """
import sys, time
from bindery.scratch import scratch_folder
with scratch_folder("uploads") as folder:
    (folder / "upload").write_bytes(b"x" * 1000)
    print(folder, flush=True)
    time.sleep(600)
"""


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.setenv("TMPDIR", str(tmp_path))


def _holder() -> tuple[subprocess.Popen[str], Path]:
    process = subprocess.Popen([sys.executable, "-c", HOLD], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    with process.stdout:
        return process, Path(process.stdout.readline().strip())


def test_a_folder_is_gone_with_its_context_and_private_before(tmp_path: Path) -> None:
    with scratch_folder("clips") as folder:
        (folder / "medium").write_bytes(b"x")
        assert folder.stat().st_mode & 0o077 == 0
        sweep()
        assert (folder / "medium").exists()
    assert list(tmp_path.iterdir()) == []


def test_a_full_temporary_folder_is_told_of(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "mkdtemp", Mock(side_effect=OSError(errno.ENOSPC, "No space left on device")))
    with pytest.raises(StorageFull, match="temporary files"), scratch_folder("clips"):
        pass


def test_only_what_a_killed_process_left_is_swept_away(tmp_path: Path) -> None:
    (tmp_path / "bindery-scratch-of-another-kind").write_text("a file")
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "bindery-scratch-link").symlink_to(tmp_path / "elsewhere")
    (living, kept), (dead, left) = _holder(), _holder()
    try:
        sweep()
        assert (kept / "upload").exists()
        assert (left / "upload").exists()
        dead.kill()
        dead.wait()
        sweep()
        assert (kept / "upload").exists()
        assert not left.exists()
    finally:
        for process in (living, dead):
            process.kill()
            process.wait()
    assert (tmp_path / "elsewhere").is_dir()
