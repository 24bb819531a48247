"""API keys: how they are made, written down and told apart. What is kept is a key's SHA-256, never the key.

A plain hash is enough here, salt and scrypt would add nothing: a key is 256 random bits, so nobody can list the likely ones and hash
them ahead, and two keys are never alike. A slow hash would only make each request slow.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import os
import secrets
import tempfile
import tomllib
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from bindery.errors import InvalidParameter

Scope = Literal["read", "write", "admin"]

PREFIX = "bk_"  # so that people and secret scanners see what it is
RANDOM_BYTES = 32
SHORTEST = 32  # characters of a key that somebody brings along; below, the plain hash would not hold


class Key(BaseModel):
    """One row of the table of keys."""

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)

    name: str = Field(pattern=r"^[A-Za-z0-9._-]{1,64}$", description="for logs and for people; no secret")
    sha256: str = Field(pattern=r"^[0-9a-f]{64}$")
    scopes: tuple[Scope, ...] = Field(min_length=1)
    requests_per_minute: int | None = Field(None, gt=0)
    inflight: int | None = Field(None, gt=0, description="requests at the same time")

    def allows(self, scope: Scope) -> bool:
        return scope in self.scopes or "admin" in self.scopes


def new_key() -> str:
    return PREFIX + secrets.token_urlsafe(RANDOM_BYTES)


def digest(key: str) -> str:
    """What the table keeps of a key: 64 hexadecimal digits."""
    return hashlib.sha256(key.encode("utf-8", "surrogateescape")).hexdigest()


def find(key: str, table: Sequence[Key]) -> Key | None:
    """The row of this key. Every row is compared, each in constant time, so that the time taken tells nothing."""
    given, found = digest(key), None
    for row in table:
        if hmac.compare_digest(given, row.sha256):
            found = row
    return found


def read_keys(path: Path) -> tuple[Key, ...]:
    """The table in a TOML file of `[[key]]` rows. Raises `InvalidParameter` that names the file and the field, never a value."""
    try:
        document = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise InvalidParameter(f"the keys file {path} cannot be read: {error.strerror}") from error
    except ValueError as error:  # TOML's errors and those of the encoding; their texts may quote the file
        raise InvalidParameter(f"the keys file {path} is not valid TOML in UTF-8") from error
    return _checked(document, path)


def check_names(table: Sequence[Key], where: str) -> None:
    """Raises `InvalidParameter` when two rows have one name or one key: which limits would hold?"""
    for what in ("name", "sha256"):
        values = [getattr(row, what) for row in table]
        twice = next((row.name for row in table if values.count(getattr(row, what)) > 1), None)
        if twice is not None:
            raise InvalidParameter(f"{where}: two keys have the same {what} ({twice}); give each its own")


def add_key(path: Path, key: Key) -> None:
    """Append a row, in one step for whoever reads meanwhile; a new file is readable by its owner only. Raises `InvalidParameter`."""
    table = read_keys(path) if path.exists() else ()
    check_names([*table, key], f"the keys file {path}")
    before = path.read_text(encoding="utf-8") if path.exists() else ""
    mode = path.stat().st_mode & 0o777 if path.exists() else 0o600
    try:
        handle, written = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            file.write(before + ("\n" if before else "") + row_text(key))
            os.fchmod(file.fileno(), mode)
        Path(written).replace(path)
    except OSError as error:
        raise InvalidParameter(f"the keys file {path} cannot be written: {error.strerror}") from error


def row_text(key: Key) -> str:
    """One row as TOML. JSON's strings, numbers and lists of strings are TOML's too."""
    fields = key.model_dump(mode="json", exclude_none=True)
    return "\n".join(["[[key]]", *(f"{name} = {json.dumps(value)}" for name, value in fields.items()), ""])


def _checked(document: dict[str, Any], path: Path) -> tuple[Key, ...]:
    stray = [name for name in document if name != "key"]
    if stray:
        raise InvalidParameter(f"the keys file {path} has {stray[0][:40]!r} at its top; it takes [[key]] rows only")
    try:
        table = TypeAdapter(tuple[Key, ...]).validate_python(document.get("key", []))
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        place = ".".join(str(part) for part in first["loc"])
        raise InvalidParameter(f"the keys file {path}, key {place}: {first['msg']}") from error
    check_names(table, f"the keys file {path}")
    return table
