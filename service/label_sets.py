"""Label sets: named lists of labels, one small JSON file each, so that they outlive the process."""

from __future__ import annotations

import os
import re
import tempfile
from pathlib import Path

from pydantic import BaseModel, ConfigDict, ValidationError

from bindery.errors import InvalidParameter, StorageFull, UnknownLabelSet

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}")


class LabelSet(BaseModel):
    """Labels, and the templates they are put in; without templates, those of the bundle."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    labels: tuple[str, ...]
    templates: tuple[str, ...] | None = None


class LabelSets:
    """Synchronous and safe to call from several threads: a file is replaced whole, never changed."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory

    def names(self) -> list[str]:
        if not self._directory.is_dir():
            return []
        return sorted(path.stem for path in self._directory.glob("*.json") if NAME.fullmatch(path.stem))

    def get(self, name: str) -> LabelSet:
        """Raises `UnknownLabelSet`."""
        try:
            return LabelSet.model_validate_json(self._path(name).read_bytes())
        except FileNotFoundError as error:
            raise UnknownLabelSet(f"there is no label set {name!r}; PUT /v1/label-sets/{name} makes one") from error
        except ValidationError as error:
            raise UnknownLabelSet(f"the file of label set {name!r} is damaged; PUT it again") from error

    def put(self, name: str, labels: LabelSet) -> bool:
        """Store or replace; True when it is new. Raises `InvalidParameter` (name), `StorageFull`."""
        path = self._path(name)
        is_new = not path.exists()
        try:
            self._directory.mkdir(parents=True, exist_ok=True)
            handle, temporary = tempfile.mkstemp(dir=self._directory, suffix=".part")
            with os.fdopen(handle, "wb") as file:
                file.write(labels.model_dump_json().encode())
                file.flush()
                os.fsync(file.fileno())
            os.replace(temporary, path)
        except OSError as error:
            raise StorageFull(f"label set {name!r} cannot be stored: {error.strerror}", retry_after_ms=60_000) from error
        return is_new

    def delete(self, name: str) -> None:
        """Raises `UnknownLabelSet`."""
        try:
            self._path(name).unlink()
        except FileNotFoundError as error:
            raise UnknownLabelSet(f"there is no label set {name!r}") from error

    def _path(self, name: str) -> Path:
        if not NAME.fullmatch(name):
            raise InvalidParameter(
                f"a label set's name is 1 to 63 letters, digits, '.', '_' or '-', the first a letter or digit, not {name!r}",
                pointer="/name",
            )
        return self._directory / f"{name}.json"
