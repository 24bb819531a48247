from __future__ import annotations

import hashlib
import re
from pathlib import Path

import pytest

from bindery.errors import InvalidParameter
from bindery.keys import Key, add_key, digest, find, new_key, read_keys

SECRET = "bk_a-key-that-is-long-enough-for-a-test"


def row(name: str = "a", secret: str = SECRET, **more: object) -> Key:
    return Key.model_validate({"name": name, "sha256": digest(secret), "scopes": ["read"], **more})


def test_keys_are_random_and_long() -> None:
    made = {new_key() for _ in range(100)}
    assert len(made) == 100
    assert all(re.fullmatch(r"bk_[A-Za-z0-9_-]{43}", one) for one in made)  # 43 characters of 6 bits hold 256


def test_a_key_is_found_by_its_hash_only() -> None:
    table = [row("a"), row("b", "bk_another")]
    assert find("bk_another", table) is table[1]
    for wrong in ("", "bk_", digest(SECRET), SECRET + " ", SECRET.upper(), "ä", "\udcff"):
        assert find(wrong, table) is None
    assert table[0].sha256 == hashlib.sha256(SECRET.encode()).hexdigest()


def test_admin_includes_the_other_scopes_and_write_does_not_include_read() -> None:
    assert row(scopes=["admin"]).allows("read")
    assert row(scopes=["admin"]).allows("write")
    assert not row(scopes=["write"]).allows("read")
    assert not row(scopes=["read", "write"]).allows("admin")


def test_rows_that_are_added_are_read_back(tmp_path: Path) -> None:
    path = tmp_path / "keys.toml"
    first, second = row("a", requests_per_minute=60, inflight=4), row("b", "bk_b", scopes=["read", "write"])
    add_key(path, first)
    assert path.stat().st_mode & 0o777 == 0o600
    path.write_text("# ours\n" + path.read_text())
    add_key(path, second)
    assert read_keys(path) == (first, second)
    assert path.read_text().startswith("# ours\n")
    assert list(tmp_path.iterdir()) == [path]
    with pytest.raises(InvalidParameter, match=r"the same name \(a\)"):
        add_key(path, row("a", "bk_c"))


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("[[key]", "not valid TOML"),
        (f'key = "{SECRET}"', "key : Input should be a valid"),
        (f'{SECRET[3:]} = "x"', "rows only"),
        (f'[[key]]\nname = "a"\nsha256 = "{SECRET}"\nscopes = ["read"]', r"key 0\.sha256"),
        (f'[[key]]\nname = "a"\nsha256 = "{"0" * 64}"\nscopes = []', r"key 0\.scopes"),
        (f'[[key]]\nname = "a"\nsha256 = "{"0" * 64}"\nscopes = ["root"]', r"key 0\.scopes\.0"),
        (f'[[key]]\nname = "a"\nsha256 = "{"0" * 64}"\nscopes = ["read"]\nsecret = "{SECRET}"', r"key 0\.secret"),
        (f'[[key]]\nname = "a\\nb"\nsha256 = "{"0" * 64}"\nscopes = ["read"]', r"key 0\.name"),
        (f'[[key]]\nname = "a"\nsha256 = "{"0" * 64}"\nscopes = ["read"]\n' * 2, "the same name"),
    ],
)
def test_a_broken_file_is_told_by_its_name_and_field_and_never_by_its_values(text: str, reason: str, tmp_path: Path) -> None:
    path = tmp_path / "keys.toml"
    path.write_text(text)
    with pytest.raises(InvalidParameter, match=reason) as told:
        read_keys(path)
    assert str(path) in told.value.detail
    assert SECRET not in told.value.detail


def test_a_missing_file_and_wrong_bytes_are_told(tmp_path: Path) -> None:
    with pytest.raises(InvalidParameter, match=r"cannot be read: No such file"):
        read_keys(tmp_path / "none.toml")
    (tmp_path / "bytes.toml").write_bytes(b"\xff\xfe")
    with pytest.raises(InvalidParameter, match="not valid TOML"):
        read_keys(tmp_path / "bytes.toml")
