"""Sealing: rows move from memory into segments, small segments into larger ones, and damaged ones are built again.

In the background, from the catalog, beside the searches. A new segment takes the place of what it replaces in one transaction;
before that it is a folder that nobody knows, after that the old folders are. Whoever dies in between leaves only such folders.
"""

from __future__ import annotations

import contextlib
import fcntl
import logging
import shutil
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from bindery.collections import registry, segment_files
from bindery.collections.database import Database
from bindery.collections.records import decode_codes
from bindery.collections.registry import Built, SegmentRow, Span
from bindery.collections.tiers import Tiers
from bindery.errors import BinderyError

log = logging.getLogger(__name__)

RETRY_S = 60.0  # after an error
BUSY_S = 1.0  # while another process builds


@dataclass(frozen=True, slots=True)
class Task:
    """Build one segment of ``span`` (``upto`` None: of all there is) in place of ``old``."""

    span: Span
    old: tuple[SegmentRow, ...]


class Sealer:
    """The segments of one collection. Over all processes one builds at a time; the others find nothing to do."""

    def __init__(self, database: Database, collection_id: int, dimension: int, root: Path, tiers: Tiers) -> None:
        self._database = database
        self._collection_id = collection_id
        self._dimension = dimension
        self._root = root
        self._tiers = tiers
        self._written: set[str] = set()

    def take_written(self) -> set[str]:
        """Folders of the segments written here since it was asked last. Their checksums were taken from the files just now."""
        taken, self._written = self._written, set()
        return taken

    def run(self, damaged: Sequence[SegmentRow], stop: Callable[[], bool], wait: bool) -> bool:
        """Do what is due; false when another builds now, and ``wait`` does not say to wait for him.

        Raises `StorageFull`, and `InterruptedError` when ``stop()`` says so.
        """
        changed = False
        with self._alone(wait) as mine:
            while mine and (task := self._due(damaged)) is not None:
                self._build(task, stop)
                changed = True
            if changed:
                with self._database.reading() as db:
                    segment_files.sweep(self._root, {row.folder for row in registry.segments(db, self._collection_id)})
        return mine

    def _due(self, damaged: Sequence[SegmentRow]) -> Task | None:
        broken = {row.id for row in damaged}
        with self._database.reading() as db:
            known = registry.segments(db, self._collection_id)
            for row in known:
                if row.id in broken or self._is_dead(registry.count(db, self._collection_id, row.span), row.rows):
                    return Task(row.span, (row,))
            for modality in registry.modalities(db, self._collection_id):
                own = [row for row in known if row.span.modality == modality]
                upto = own[-1].span.upto if own else -1
                assert upto is not None, "a registered segment has no end. This is a bug."
                growing = registry.count(db, self._collection_id, Span(modality, upto, None))
                if growing >= self._tiers.exact_rows:
                    joined = self._joined(own, growing)
                    return Task(Span(modality, joined[0].span.after if joined else upto, None), joined)
        return None

    def _is_dead(self, alive: int, rows: int) -> bool:
        return rows - alive > self._tiers.dead_share * rows

    def _joined(self, own: Sequence[SegmentRow], growing: int) -> tuple[SegmentRow, ...]:
        """The newest segments that are small beside what joins them, so that each row is built anew only a few times."""
        joined: list[SegmentRow] = []
        rows = growing
        for row in reversed(own):
            if row.rows > self._tiers.merge_factor * rows or row.rows + rows > self._tiers.segment_rows:
                break
            joined.insert(0, row)
            rows += row.rows
        return tuple(joined)

    def _build(self, task: Task, stop: Callable[[], bool]) -> None:
        with self._database.reading() as db:
            found = registry.versions(db, self._collection_id)
            if found is None:
                return
            built_at = found.generation
            span = Span(task.span.modality, task.span.after, built_at if task.span.upto is None else task.span.upto)
            keys = registry.keys(db, self._collection_id, span)
        name, rows, files = segment_files.write(self._root, self._dimension, self._pieces(span, keys), stop)
        new = Built(span, built_at, name, rows, files) if rows else None
        with self._database.writing() as db:
            taken = registry.replace(db, self._collection_id, task.old, new)
        if taken:
            self._written.add(name)
        else:  # the collection was deleted meanwhile
            shutil.rmtree(self._root / name, ignore_errors=True)
        log.info("segment of %d rows (%s) in place of %d others: %s", rows, span.modality, len(task.old), "taken" if taken else "dropped")

    def _pieces(self, span: Span, keys: segment_files.Keys) -> Iterator[segment_files.Piece]:
        # Each piece in its own transaction, so that the log of the catalog may be emptied meanwhile. What is deleted or
        # written again in between is left out, or dead by the catalog's account of what happened after `built_at`.
        step = 4 * 4096
        for start in range(0, len(keys), step):
            with self._database.reading() as db:
                for found, blobs in registry.vectors(db, self._collection_id, span, keys[start : start + step]):
                    if len(found):
                        yield found, decode_codes(blobs)

    @contextlib.contextmanager
    def _alone(self, wait: bool) -> Iterator[bool]:
        self._root.mkdir(parents=True, exist_ok=True)
        with (self._root / "building.lock").open("a") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
            except BlockingIOError:
                yield False
                return
            yield True


class Tended(Protocol):
    """What the background thread looks after."""

    def tend(self, stop: Callable[[], bool], /) -> bool:
        """Whether it was done; false: try again in a moment."""


class Background:
    """One thread for all collections of a store, started when there is something to do and ended with the store."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._due: dict[Tended, float] = {}
        """When each is tended, by the monotonic clock; one that failed waits its time while the others have their turn."""
        self._thread: threading.Thread | None = None
        self._stopping = False

    def notify(self, collection: Tended) -> None:
        """Have the collection tended soon; asking twice is asking once."""
        with self._changed:
            if self._stopping or collection in self._due:
                return
            self._due[collection] = time.monotonic()
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="bindery-sealing", daemon=True)
                self._thread.start()
            self._changed.notify_all()

    def close(self) -> None:
        """Wait until the thread has left what it was building."""
        with self._changed:
            self._stopping = True
            self._changed.notify_all()
        if self._thread is not None:
            self._thread.join()

    def _run(self) -> None:
        while (collection := self._next()) is not None:
            try:
                if not collection.tend(lambda: self._stopping):
                    self._again(collection, BUSY_S)
            except InterruptedError:
                return
            except (BinderyError, OSError) as error:
                log.warning("index segments could not be built, the search goes on without: %s", error)
                self._again(collection, RETRY_S)
            except Exception:  # the thread serves every collection, one must not end it
                log.exception("index segments could not be built, the search goes on without. This is a bug.")

    def _next(self) -> Tended | None:
        """The collection whose time has come first, when it has come; None: the store is closed."""
        with self._changed:
            while not self._stopping:
                first = min(self._due, key=self._due.__getitem__, default=None)
                if first is None:
                    self._changed.wait()
                elif (left := self._due[first] - time.monotonic()) > 0:
                    self._changed.wait(left)
                else:
                    del self._due[first]
                    return first
        return None

    def _again(self, collection: Tended, after_s: float) -> None:
        with self._changed:
            self._due[collection] = time.monotonic() + after_s
