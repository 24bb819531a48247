from __future__ import annotations

import errno
from pathlib import Path

import pytest

from bindery.disk import full_disk_told, to_disk
from bindery.errors import StorageFull


def test_a_full_disk_is_told_of_and_other_errors_stay() -> None:
    with Path("/dev/full").open("wb", buffering=0) as full, pytest.raises(StorageFull, match="free some"), full_disk_told("free some"):
        full.write(b"x")
    with pytest.raises(OSError, match="quota") as caught, full_disk_told("free some"):
        raise PermissionError(errno.EACCES, "not the quota")
    assert isinstance(caught.value, PermissionError)


def test_files_and_folders_go_to_the_disk(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"x")
    for path in (tmp_path / "file", tmp_path):
        to_disk(path)
    with pytest.raises(FileNotFoundError):
        to_disk(tmp_path / "none")
