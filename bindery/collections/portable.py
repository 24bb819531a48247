"""Collections in and out of a folder of open files: what was read is upserted in steps, so memory does not grow with the size.

Two layouts are read: Parquet as `export_collection` writes it, and clip-retrieval's arrays beside metadata. Nothing is unpickled.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from bindery.collections import portable_npy, portable_parquet
from bindery.collections.model import Collection, Definition, Item, ItemResult, check_space
from bindery.collections.portable_parquet import Row, export_collection
from bindery.errors import BinderyError, InvalidParameter, SpaceMismatch

__all__ = ["Imported", "export_collection", "import_collection", "stated_definition"]

_STEP = 500  # items of one commit


@dataclass
class Imported:
    """What became of the rows: ``read`` = ``stored`` + ``superseded`` (an equal id came later in the same step) + ``failed``."""

    read: int = 0
    stored: int = 0
    superseded: int = 0
    failed: int = 0
    rescaled: int = 0
    """Stored rows whose length was not 1 within a hundredth; they are kept at length 1, as every vector is."""


Complain = Callable[[str, BinderyError], None]
"""Is told each row that was left out: where it stands (file and row), and why."""


def import_collection(collection: Collection, folder: Path, *, assume_space: bool = False, complain: Complain | None = None) -> Imported:
    """Upsert every row of ``folder``. Rows that are no valid items are counted and told to ``complain``, the others go in.

    Files are checked before the first row is stored. ``assume_space``: take files that state no space as of the collection's.
    Raises `SpaceMismatch`, `DimensionMismatch`, `UnreadableMedia` for a file that is damaged, `InvalidParameter` for a folder of neither
    layout. Running it again stores the same items again, so an import that was interrupted is begun anew.
    """
    definition = collection.definition
    if paths := portable_parquet.files(folder):
        for path in paths:
            _check_stated(portable_parquet.check(path, definition), definition, path, assume_space)
        rows = (row for path in paths for row in portable_parquet.rows(path))
    elif parts := portable_npy.parts(folder):
        _check_stated(None, definition, folder, assume_space)
        for part in parts:
            portable_npy.check(part, definition)
        rows = (row for part in parts for row in portable_npy.rows(part))
    else:
        raise InvalidParameter(f"{folder} holds no *.parquet and no MODALITY_emb/MODALITY_emb_N.npy files: there is nothing to import")
    return _store(collection, rows, complain)


def stated_definition(folder: Path) -> Definition | None:
    """The definition that the Parquet files of a folder state; None where they state none. Raises `UnreadableMedia`."""
    paths = portable_parquet.files(folder)
    return portable_parquet.stated(paths[0]) if paths else None


def _check_stated(space: str | None, definition: Definition, place: Path, assume_space: bool) -> None:
    if space is not None:
        check_space(definition, space, f"file {place.name}")
    elif not assume_space:
        raise SpaceMismatch(
            f"{place} does not state the space of its vectors. If they are of space {definition.space} (bundle {definition.bundle!r}), "
            "say so with --assume-space (assume_space=True); else index the files again with `bindery index`"
        )


def _store(collection: Collection, rows: Iterable[Row], complain: Complain | None) -> Imported:
    tally = Imported()
    step: list[Row] = []
    for row in rows:
        step.append(row)
        if len(step) == _STEP:
            _commit(collection, step, tally, complain)
            step = []
    _commit(collection, step, tally, complain)
    return tally


def _commit(collection: Collection, step: list[Row], tally: Imported, complain: Complain | None) -> None:
    tally.read += len(step)
    results = iter(collection.upsert([row.item for row in step if isinstance(row.item, Item)]))
    for row in step:
        result = next(results) if isinstance(row.item, Item) else ItemResult("", "failed", row.item)
        if result.error is not None:
            tally.failed += 1
            if complain is not None:
                complain(row.where, result.error)
        elif result.status == "superseded":
            tally.superseded += 1
        else:
            tally.stored += 1
            tally.rescaled += row.rescaled
