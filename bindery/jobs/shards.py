"""Parquet shards as a target: vectors without a collection, in files that any tool reads and `collection import` takes.

A folder of whole shards, and beside them `.bindery/` with the ledger. A shard is written there first; the ledger learns of
it in the transaction that ends its files; then it is moved to its place. So whatever is killed when: each file's rows are
in one shard, once. A row that is replaced or removed goes away with its shard, which is written again without it.
"""

from __future__ import annotations

import errno
import fcntl
import json
import uuid
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict
from pathlib import Path

from bindery.collections import Definition, Item, ItemResult, check_space
from bindery.collections.clips import is_clip_of
from bindery.collections.fields import check_fields
from bindery.collections.model import FieldType
from bindery.collections.portable_parquet import ROWS_PER_FILE, ShardWriter, items_between, pyarrow, row_count
from bindery.collections.records import to_record
from bindery.disk import to_disk
from bindery.errors import AlreadyExists, BinderyError, InvalidParameter, JobState, StorageFull
from bindery.jobs.executor import Crew
from bindery.jobs.ledger import Ledger
from bindery.jobs.spec import JobSpec
from bindery.jobs.target import OpenTarget, Stored, check_spec
from bindery.limits import Limits

COLLECTION = "shards"
"""What the ledger calls them."""

HOME = ".bindery"
_DEFINITION = "definition.json"


class InShards:
    """Implements `Target`."""

    units_at_once: int = 2000
    wait_s: float = 30.0

    def __init__(self, out: Path, definition: Definition, ledger: Ledger, limits: Limits, rows_per_file: int = ROWS_PER_FILE) -> None:
        self._out = out
        self._home = out / HOME
        self._definition = definition
        self._ledger = ledger
        self._limits = limits
        self._rows_per_file = rows_per_file
        self._new: list[str] = []  # shards in the home folder that the ledger is about to learn of
        self._old: list[str] = []  # and those that they replace
        self._recover()

    @property
    def fields(self) -> Mapping[str, FieldType]:
        return self._definition.fields

    def content_hashes(self, names: Iterable[str]) -> Mapping[str, str | None]:
        return {name: known.key for name, known in self._ledger.known(COLLECTION, names).items()}

    def items_of(self, name: str) -> list[Item]:
        known = self._ledger.known(COLLECTION, [name]).get(name)
        if known is None or not known.place:
            return []
        found = items_between(self._out / known.place, name, f"{name}$")  # $ follows #, with which a clip's time begins
        return [item for item in found if item.id == name or is_clip_of(item.id, name)]

    def store(self, items: Sequence[Item], names: Sequence[str], lasting: Sequence[str]) -> Stored:
        del lasting
        results = [self._checked(item) for item in items]
        good = sorted((item for item, result in zip(items, results, strict=True) if result.error is None), key=lambda item: item.id)
        moved = self._without(names)
        return Stored(results, self._written([good]) if good else "", moved)

    def remove(self, names: Sequence[str]) -> Stored:
        return Stored([], "", self._without(names))

    def publish(self) -> None:
        for name in self._new:
            (self._home / name).rename(self._out / name)
        for name in self._old:
            (self._out / name).unlink()
        if self._new or self._old:
            to_disk(self._out)
        self._new, self._old = [], []

    def discard(self) -> None:
        for name in self._new:
            (self._home / name).unlink()
        self._new, self._old = [], []

    def finish(self) -> None:
        """Join small shards, in the order of their names, up to the size of a whole one."""
        group: list[str] = []
        rows = 0
        for name in sorted(self._ledger.places(COLLECTION)):
            count = row_count(self._out / name)
            if group and rows + count > self._rows_per_file:
                self._join(group)
                group, rows = [], 0
            group.append(name)
            rows += count
        self._join(group)

    def _join(self, names: Sequence[str]) -> None:
        if len(names) > 1:
            joined = self._written(self._items(name) for name in names)
            self._old += names
            self._ledger.move(COLLECTION, dict.fromkeys(names, joined))
            self.publish()

    def _checked(self, item: Item) -> ItemResult:
        try:
            to_record(item, self._definition, self._limits)
        except BinderyError as error:
            return ItemResult(item.id, "failed", error)
        return ItemResult(item.id, "created")

    def _without(self, names: Iterable[str]) -> dict[str, str | None]:
        """Write each shard that has rows of these files again without them: old names with the new ones."""
        places: dict[str, set[str]] = {}
        for name, known in self._ledger.known(COLLECTION, names).items():
            if known.place:
                places.setdefault(known.place, set()).add(name)
        moved: dict[str, str | None] = {}
        for place, gone in places.items():
            kept = [item for item in self._items(place) if not _is_of(item.id, gone)]
            moved[place] = self._written([kept]) if kept else None
            self._old.append(place)
        return moved

    def _items(self, place: str) -> list[Item]:
        return items_between(self._out / place)

    def _written(self, groups: Iterable[Sequence[Item]]) -> str:
        """A shard of its own in the home folder, on the disk: its name."""
        name = f"part-{uuid.uuid4().hex[:16]}.parquet"
        try:
            with ShardWriter(self._home / name, self._definition) as writer:
                for items in groups:
                    writer.write(items)
            to_disk(self._home / name)
        except OSError as error:
            raise _writing_error(self._home / name, error) from error
        self._new.append(name)
        return name

    def _recover(self) -> None:
        """What the ledger knows of is put in its place; what it does not know of goes away."""
        known = self._ledger.places(COLLECTION)
        for path in self._home.glob("*.parquet"):
            if path.name in known:
                path.rename(self._out / path.name)
            else:
                path.unlink()
        for path in self._out.glob("part-*.parquet"):
            if path.name not in known:
                path.unlink()
        to_disk(self._out)


@contextmanager
def shards_in(out: Path) -> Iterator[Ledger]:
    """The ledger of a folder of shards, made when it is missing, held against other processes.

    Raises `AlreadyExists` for a folder with other Parquet files, `JobState` when it is held, `InvalidParameter`.
    """
    pyarrow()
    home = out / HOME
    if not home.exists() and any(out.glob("*.parquet")):
        raise AlreadyExists(f"{out} holds Parquet files that are no shards of a job; name an empty folder")
    with ExitStack() as stack:
        try:
            home.mkdir(parents=True, exist_ok=True)
            lock = stack.enter_context((home / "lock").open("a"))
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise JobState(f"{out} is being written by another process") from None
        except OSError as error:
            raise _writing_error(out, error) from error
        ledger = Ledger(home)
        stack.callback(ledger.close)
        yield ledger


def in_shards(out: Path, ledger: Ledger) -> OpenTarget:
    """Raises `SpaceMismatch` when the folder has vectors of another space."""

    def opened(spec: JobSpec, crew: Crew) -> InShards:
        check_spec(spec, crew)
        manifest = crew.bundle.manifest
        path = out / HOME / _DEFINITION
        if path.exists():
            found = Definition(**json.loads(path.read_text()))
            check_space(found, manifest.space, f"bundle {manifest.name!r}")
        else:
            found = Definition(COLLECTION, manifest.space, manifest.dimension, manifest.name, check_fields(spec.fields))
            path.with_suffix(".partial").write_text(json.dumps(asdict(found)))
            path.with_suffix(".partial").rename(path)
        return InShards(out, found, ledger, crew.limits)

    return opened


def _is_of(id: str, names: set[str]) -> bool:
    return id in names or (id.rpartition("#")[0] in names and is_clip_of(id, id.rpartition("#")[0]))


def _writing_error(path: Path, error: OSError) -> BinderyError:
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return StorageFull(f"no space left to write {path}; free some, what is committed is kept")
    return InvalidParameter(f"{path} cannot be written: {error.strerror or error}")
