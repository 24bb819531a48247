"""The ledger: jobs and their units in SQLite beside the catalog. What it has been told is on the disk when it returns.

The collection is committed first and the ledger after it: a crash between the two leaves work that is found done when it is tried again.
"""

from __future__ import annotations

import fcntl
import json
import sqlite3
import time
import uuid
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

from bindery.collections.database import Database
from bindery.errors import JobState, UnknownJob
from bindery.jobs.leases import HELD, LEASE_S, Leases, Unit, requeue
from bindery.jobs.listing import Listed
from bindery.jobs.retry import TRANSIENT
from bindery.jobs.spec import JobSpec

State = Literal["queued", "listing", "running", "done", "failed", "paused", "cancelled"]
ENDED: tuple[State, ...] = ("done", "failed", "cancelled")
UnitState = Literal["queued", "leased", "done", "skipped", "failed"]
UNIT_STATES: tuple[UnitState, ...] = get_args(UnitState)
Origin = Literal["cli", "http"]

_KEPT_EVENTS = 200
_JOB = "id, spec, origin, state, run, detail, left_out, encoded, copied, pruned, created_at, updated_at"


@dataclass(frozen=True, slots=True)
class Job:
    id: str
    spec: JobSpec
    origin: Origin
    state: State
    run: int  # how often it was started
    detail: str | None
    left_out: int
    encoded: int
    copied: int
    pruned: int
    created_at: float
    updated_at: float


@dataclass(frozen=True, slots=True)
class Ending:
    """What became of a unit."""

    unit: Unit
    state: UnitState
    content_hash: str | None = None
    pipeline_id: str | None = None
    code: str | None = None
    detail: str | None = None
    copied: bool = False
    kept: bool = False  # it failed, but a part of it is stored


@dataclass(frozen=True, slots=True)
class Known:
    """What a job has stored under a name."""

    uri: str
    fingerprint: str
    content_hash: str  # empty when only a part of it could be stored
    pipeline_id: str
    metadata: str
    place: str

    @property
    def key(self) -> str:
        """The content hash of its items."""
        return f"{self.pipeline_id}:{self.content_hash}"

    def says(self, listed: Listed) -> bool:
        """Whether the file lay at the same place and the same was said about it."""
        return (self.uri, self.metadata) == (listed.uri, _json(listed.metadata))


class Ledger:
    def __init__(self, data_dir: Path) -> None:
        self.folder = data_dir / "jobs"
        self._database = Database(self.folder / "ledger.sqlite", "bindery.jobs")

    def close(self) -> None:
        self._database.close()

    # Jobs

    def add(self, spec: JobSpec, origin: Origin) -> Job:
        id, now = uuid.uuid4().hex[:12], time.time()
        with self._database.writing() as db:
            db.execute(
                "INSERT INTO jobs (id, spec, origin, state, created_at, updated_at) VALUES (?, ?, ?, 'queued', ?, ?)",
                (id, spec.model_dump_json(), origin, now, now),
            )
            _add_event(db, id, "state", {"state": "queued"})
        return self.job(id)

    def job(self, id: str) -> Job:
        """Raises `UnknownJob`."""
        with self._database.reading() as db:
            row = db.execute(f"SELECT {_JOB} FROM jobs WHERE id = ?", (id,)).fetchone()
        if row is None:
            raise UnknownJob(f"there is no job {id[:80]!r}")
        return _job(row)

    def jobs(self) -> list[Job]:
        """The newest first."""
        with self._database.reading() as db:
            return [_job(row) for row in db.execute(f"SELECT {_JOB} FROM jobs ORDER BY created_at DESC, id").fetchall()]

    def unfinished(self, spec: JobSpec) -> Job | None:
        """The newest job of the same work that was interrupted."""
        return next((job for job in self.jobs() if job.state not in ENDED and job.spec.same_work(spec)), None)

    def set_state(self, id: str, state: State, detail: str | None = None, spec: JobSpec | None = None) -> None:
        with self._database.writing() as db:
            db.execute("UPDATE jobs SET state = ?, detail = ?, updated_at = ? WHERE id = ?", (state, detail, time.time(), id))
            if spec is not None:
                db.execute("UPDATE jobs SET spec = ? WHERE id = ?", (spec.model_dump_json(), id))
            _add_event(db, id, "state", {"state": state, "detail": detail})

    @contextmanager
    def held(self, id: str) -> Iterator[None]:
        """Hold a job, so that no other process runs it; a process that dies lets go. Raises `JobState` when another has it."""
        with (self.folder / f"{id}.lock").open("a") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise JobState(f"job {id} is being run by another process") from None
            yield

    # Units

    def begin(self, id: str) -> int:
        """A new run of the job: its number. What an interrupted run had leased, and what time may have healed, is queued again."""
        with self._database.writing() as db:
            db.execute("UPDATE jobs SET run = run + 1, state = 'listing', detail = NULL, updated_at = ? WHERE id = ?", (time.time(), id))
            requeue(db, id, [error.code for error in TRANSIENT])
            _add_event(db, id, "state", {"state": "listing"})
            run: int = db.execute("SELECT run FROM jobs WHERE id = ?", (id,)).fetchone()[0]
        return run

    def list_units(self, id: str, run: int, units: Iterable[tuple[Listed, str]]) -> None:
        """Enter files with their modality. One that has changed since an earlier run of the job is queued again."""
        rows = [(id, file.name, file.uri, file.size, modality, _json(file.metadata), file.fingerprint, run) for file, modality in units]
        with self._database.writing() as db:
            db.executemany(
                "INSERT INTO units (job_id, name, uri, size, modality, metadata, fingerprint, run, state) "
                "VALUES (?, ?, ?, ?, ?, ?, ?, ?, 'queued') ON CONFLICT (job_id, name) DO UPDATE SET run = excluded.run, "
                "state = CASE WHEN fingerprint = excluded.fingerprint AND fingerprint != '' AND uri = excluded.uri "
                "AND modality = excluded.modality AND metadata = excluded.metadata THEN state ELSE 'queued' END, "
                "deaths = CASE WHEN fingerprint = excluded.fingerprint AND fingerprint != '' THEN deaths ELSE 0 END, "
                "deaths_alone = CASE WHEN fingerprint = excluded.fingerprint AND fingerprint != '' THEN deaths_alone ELSE 0 END, "
                "uri = excluded.uri, size = excluded.size, modality = excluded.modality, metadata = excluded.metadata, "
                "fingerprint = excluded.fingerprint",
                rows,
            )

    def fail_listed(self, id: str, run: int, uri: str, code: str, detail: str) -> None:
        """Enter something that names no file."""
        with self._database.writing() as db:
            db.execute(
                "INSERT INTO units (job_id, name, uri, size, modality, metadata, fingerprint, run, state, code, detail) "
                "VALUES (?, ?, ?, 0, '', '{}', '', ?, 'failed', ?, ?) ON CONFLICT (job_id, name) DO UPDATE SET "
                "run = excluded.run, state = 'failed', code = excluded.code, detail = excluded.detail",
                (id, uri, uri, run, code, detail),
            )

    def end_listing(self, id: str, run: int, left_out: int) -> None:
        """The listing is whole: units of an earlier run that are not in it any more are dropped."""
        with self._database.writing() as db:
            db.execute("DELETE FROM units WHERE job_id = ? AND run < ?", (id, run))
            db.execute("UPDATE jobs SET state = 'running', left_out = ?, updated_at = ? WHERE id = ?", (left_out, time.time(), id))
            _add_event(db, id, "state", {"state": "running"})

    def leases(self, id: str, seconds: float = LEASE_S) -> Leases:
        """For a new worker on the job."""
        return Leases(self._database, id, seconds)

    def end(
        self,
        job: Job,
        leases: Leases,
        endings: Sequence[Ending],
        *,
        place: str = "",
        moved: Mapping[str, str | None] | None = None,
        whole: bool = False,
    ) -> list[Ending]:
        """Enter what became of units, in one transaction. Gives those that were taken: the others are not the worker's any more.

        ``place``, ``moved``: as of `bindery.jobs.target.Stored`. ``whole``: all of them, or none.
        """
        with self._database.writing() as db:
            taken = [
                e
                for e in endings
                if db.execute(
                    "UPDATE units SET state = ?, content_hash = ?, pipeline_id = ?, code = ?, detail = ?, lease_owner = NULL, "
                    f"lease_until = NULL WHERE {HELD}",
                    (e.state, e.content_hash, e.pipeline_id, e.code, e.detail, *leases.fence(e.unit)),
                ).rowcount
            ]
            if whole and len(taken) < len(endings):
                db.execute("ROLLBACK")
                return []
            _move(db, job.spec.collection, moved or {})
            db.executemany(
                "INSERT INTO stored (collection, name, source, uri, fingerprint, content_hash, pipeline_id, metadata, place) "
                "VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT (collection, name) DO UPDATE SET source = excluded.source, "
                "uri = excluded.uri, fingerprint = excluded.fingerprint, content_hash = excluded.content_hash, "
                "pipeline_id = excluded.pipeline_id, metadata = excluded.metadata, place = coalesce(nullif(excluded.place, ''), place)",
                [_stored(job, e, place) for e in taken if e.state in ("done", "skipped") or e.kept],
            )
            copied = sum(e.copied for e in taken)
            encoded = sum(e.state == "done" for e in taken) - copied
            db.execute(
                "UPDATE jobs SET encoded = encoded + ?, copied = copied + ?, updated_at = ? WHERE id = ?",
                (encoded, copied, time.time(), job.id),
            )
        return taken

    def counts(self, id: str) -> dict[UnitState, int]:
        with self._database.reading() as db:
            found = dict(db.execute("SELECT state, count(*) FROM units WHERE job_id = ? GROUP BY state", (id,)).fetchall())
        return {state: found.get(state, 0) for state in UNIT_STATES}

    def failures(self, id: str) -> Iterator[tuple[str, str, str, str]]:
        """Name, uri, code and detail of every unit that failed."""
        with self._database.reading() as db:
            yield from db.execute("SELECT name, uri, code, detail FROM units WHERE job_id = ? AND state = 'failed' ORDER BY name", (id,))

    def last_failed(self, spec: JobSpec) -> set[str]:
        """The names that failed in the last job of the spec's source and collection that came to its end."""
        last = next(
            (job for job in self.jobs() if job.state in ENDED and (job.spec.source, job.spec.collection) == (spec.source, spec.collection)),
            None,
        )
        return set() if last is None else {name for name, *_ in self.failures(last.id)}

    # What is stored

    def known(self, collection: str, names: Iterable[str]) -> dict[str, Known]:
        with self._database.reading() as db:
            rows = db.execute(
                "SELECT name, uri, fingerprint, content_hash, pipeline_id, metadata, place FROM stored "
                "WHERE collection = ? AND name IN (SELECT value FROM json_each(?))",
                (collection, json.dumps(list(names))),
            ).fetchall()
        return {row[0]: Known(*row[1:]) for row in rows}

    def names_of_content(self, collection: str, content_hash: str, pipeline_id: str) -> list[str]:
        """A few names under which the same bytes were stored by the same pipeline."""
        with self._database.reading() as db:
            rows = db.execute(
                "SELECT name FROM stored WHERE collection = ? AND content_hash = ? AND pipeline_id = ? LIMIT 5",
                (collection, content_hash, pipeline_id),
            ).fetchall()
        return [row[0] for row in rows]

    def vanished(self, job: Job) -> tuple[list[str], int]:
        """Names stored from the job's source that its listing has not, and how many are stored from it in all."""
        where = "FROM stored WHERE collection = ? AND source = ?"
        of = (job.spec.collection, job.spec.source)
        with self._database.reading() as db:
            total: int = db.execute(f"SELECT count(*) {where}", of).fetchone()[0]
            rows = db.execute(f"SELECT name {where} AND name NOT IN (SELECT name FROM units WHERE job_id = ?)", (*of, job.id)).fetchall()
        return [row[0] for row in rows], total

    def places(self, collection: str) -> set[str]:
        """Every place in which something is stored."""
        with self._database.reading() as db:
            return {row[0] for row in db.execute("SELECT DISTINCT place FROM stored WHERE collection = ? AND place != ''", (collection,))}

    def move(self, collection: str, moved: Mapping[str, str | None]) -> None:
        """All that was in a place is in another one now."""
        with self._database.writing() as db:
            _move(db, collection, moved)

    def forget(self, job: Job, names: Sequence[str], moved: Mapping[str, str | None]) -> None:
        """The names were removed from the collection."""
        with self._database.writing() as db:
            _move(db, job.spec.collection, moved)
            db.executemany("DELETE FROM stored WHERE collection = ? AND name = ?", [(job.spec.collection, name) for name in names])
            db.execute("UPDATE jobs SET pruned = pruned + ? WHERE id = ?", (len(names), job.id))

    # Events

    def add_event(self, id: str, kind: str, data: dict[str, Any]) -> None:
        with self._database.writing() as db:
            _add_event(db, id, kind, data)

    def events(self, id: str, after: int) -> list[tuple[int, str, str]]:
        """Sequence number, kind and JSON data of the events after a number; the oldest are forgotten in time."""
        with self._database.reading() as db:
            return db.execute("SELECT seq, kind, data FROM events WHERE job_id = ? AND seq > ? ORDER BY seq", (id, after)).fetchall()


def _stored(job: Job, ending: Ending, place: str) -> tuple[Any, ...]:
    listed = ending.unit.listed
    of = (job.spec.collection, listed.name, job.spec.source)
    hashes = (ending.content_hash or "", ending.pipeline_id or "")
    return (*of, listed.uri, listed.fingerprint, *hashes, _json(listed.metadata), place if ending.state != "skipped" else "")


def _move(db: sqlite3.Connection, collection: str, moved: Mapping[str, str | None]) -> None:
    db.executemany(
        "UPDATE stored SET place = ? WHERE collection = ? AND place = ?", [(new or "", collection, old) for old, new in moved.items()]
    )


def _json(metadata: Mapping[str, Any]) -> str:
    return json.dumps(dict(metadata), sort_keys=True)


def _add_event(db: sqlite3.Connection, id: str, kind: str, data: dict[str, Any]) -> None:
    seq: int = db.execute("SELECT coalesce(max(seq), 0) + 1 FROM events WHERE job_id = ?", (id,)).fetchone()[0]
    db.execute("INSERT INTO events (job_id, seq, at, kind, data) VALUES (?, ?, ?, ?, ?)", (id, seq, time.time(), kind, json.dumps(data)))
    db.execute("DELETE FROM events WHERE job_id = ? AND seq <= ?", (id, seq - _KEPT_EVENTS))


def _job(row: tuple[Any, ...]) -> Job:
    return Job(row[0], JobSpec.model_validate_json(row[1]), *row[2:])
