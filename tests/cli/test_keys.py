from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from bindery.keys import digest, find, read_keys
from tests.cli.conftest import Run


def test_a_new_key_is_printed_once_and_only_its_hash_is_stored(run: Run, tmp_path: Path) -> None:
    file = tmp_path / "keys.toml"
    made = run("keys", "new", "archive", "--scope", "read", "--scope", "write", "--inflight", 4, "--file", file)
    assert made.code == 0
    secret = made.out.decode().strip()
    row = find(secret, read_keys(file))
    assert row is not None
    assert (row.name, row.scopes, row.inflight, row.requests_per_minute) == ("archive", ("read", "write"), 4, None)
    assert secret not in file.read_text() + made.err
    again = run("keys", "new", "archive", "--scope", "read", "--file", file)
    assert (again.code, again.out) == (1, b"")
    assert "the same name (archive)" in again.err


def test_without_a_file_the_row_is_shown_to_be_stored(run: Run, tmp_path: Path) -> None:
    made = run("keys", "new", "ops", "--scope", "admin")
    (tmp_path / "keys.toml").write_text(made.err.partition("\n\n")[2])
    assert find(made.out.decode().strip(), read_keys(tmp_path / "keys.toml")) is not None


def test_wrong_fields_are_told_by_name(run: Run, tmp_path: Path) -> None:
    for option, arguments in {
        "scopes": ("a", "--scope", "root"),
        "name": ("a b", "--scope", "read"),
        "inflight": ("a", "--scope", "read", "--inflight", "0"),
    }.items():
        done = run("keys", "new", *arguments, "--file", tmp_path / "keys.toml")
        assert done.code == 1
        assert f"error[invalid_parameter]: {option}: " in done.err
    assert not (tmp_path / "keys.toml").exists()


def test_the_list_shows_who_and_what_but_no_key(run: Run, tmp_path: Path) -> None:
    file = tmp_path / "keys.toml"
    secret = run("keys", "new", "archive", "--scope", "read", "--requests-per-minute", 60, "--file", file).out.decode().strip()
    listed = run("keys", "list", "--file", file)
    assert listed.out.decode().splitlines()[1].split() == ["archive", "read", "60", "any", digest(secret)[:12]]
    assert secret.encode() not in listed.out
    assert run("keys", "list").code == 1


def test_a_key_of_ones_own_is_hashed_when_it_is_long_enough() -> None:
    def hashed(given: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run([sys.executable, "-m", "bindery.cli.main", "keys", "hash"], input=given, capture_output=True, text=True)

    own = "Zm9ydHktdHdvIHJhbmRvbSBieXRlcyBmcm9tIG9wZW5zc2w="
    assert hashed(own + "\n").stdout.strip() == digest(own)
    short = hashed("hunter2\n")
    assert short.returncode == 1
    assert "hunter2" not in short.stderr


def test_a_broken_key_in_the_environment_is_told_without_its_value(monkeypatch: pytest.MonkeyPatch) -> None:
    command = [sys.executable, "-m", "bindery.cli.main", "keys", "list"]
    for given, told in {
        '[{"name": "a", "sha256": "bk_a-secret-in-the-wrong-place", "scopes": ["read"]}]': "setting keys.0.sha256",
        "bk_a-secret-in-the-wrong-place": "lists and objects are written as JSON",
    }.items():
        monkeypatch.setenv("BINDERY_KEYS", given)
        done = subprocess.run(command, capture_output=True, text=True)
        assert done.returncode == 1
        assert told in done.stderr
        assert "bk_a-secret" not in done.stderr
        assert len(done.stderr.splitlines()) == 1
