"""Leases: which units one worker has in work, until when, and that nobody else enters what became of them.

A unit's attempt number is its fence: it rises with every lease, and an ending is taken only from who holds the last one.
A worker that was thought dead and wakes up again is refused.

A worker that dies leaves its units leased. When such a unit has been left often, the file itself may be what kills
(a codec that takes the process along, more memory than there is): then it is tried alone, and at last not any more.
"""

from __future__ import annotations

import json
import time
import uuid
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from bindery.collections.database import Database
from bindery.jobs.listing import Listed

LEASE_S = 300.0
SUSPECT_DEATHS = 3
"""A unit that was left so often is tried alone."""

POISON_DEATHS = 3
"""And when it was left so often while it was alone, it is given up."""

UNIT = "name, uri, size, modality, metadata, fingerprint, attempt, deaths_alone"
# What has run out but is this worker's own is still in work here: it slept, and did not die.
_FREE = "job_id = ? AND (state = 'queued' OR (state = 'leased' AND lease_until < ? AND lease_owner != ?))"


@dataclass(frozen=True, slots=True)
class Unit:
    """One file of a job, leased. ``deaths_alone``: how often a worker has died that had nothing else in work."""

    listed: Listed
    modality: str
    attempt: int
    deaths_alone: int = 0


class Leases:
    """Of one worker on one job. They run out after ``seconds`` unless they are renewed."""

    def __init__(self, database: Database, job: str, seconds: float = LEASE_S) -> None:
        self.seconds = seconds
        self.owner = uuid.uuid4().hex[:12]
        self._database = database
        self._job = job

    def take(self, limit: int) -> list[Unit]:
        """Up to ``limit`` units that nobody holds, of one modality after the other, so that batches are full. No suspects."""
        return self._take(f"{_FREE} AND deaths < {SUSPECT_DEATHS}", limit, "deaths = deaths + 1")

    def take_alone(self) -> Unit | None:
        """One suspect. Nothing else of this worker may be in work until it has ended."""
        taken = self._take(f"{_FREE} AND deaths >= {SUSPECT_DEATHS}", 1, "deaths = deaths + 1, deaths_alone = deaths_alone + 1")
        return taken[0] if taken else None

    def renew(self) -> None:
        with self._database.writing() as db:
            db.execute(
                "UPDATE units SET lease_until = ? WHERE job_id = ? AND lease_owner = ? AND state = 'leased'",
                (time.time() + self.seconds, self._job, self.owner),
            )

    def confirm(self, units: Sequence[Unit]) -> set[tuple[str, int]]:
        """Name and attempt of those that are still this worker's, renewed: nobody takes them while they are being committed."""
        until = time.time() + self.seconds
        with self._database.writing() as db:
            return {
                (unit.listed.name, unit.attempt)
                for unit in units
                if db.execute(f"UPDATE units SET lease_until = ? WHERE {HELD}", (until, *self.fence(unit))).rowcount
            }

    def release(self) -> None:
        """Give back what is still held: this worker ends in peace, and no file is to blame."""
        with self._database.writing() as db:
            db.execute(
                "UPDATE units SET state = 'queued', deaths = deaths - 1, deaths_alone = max(deaths_alone - (deaths > ?), 0), "
                "lease_owner = NULL, lease_until = NULL WHERE job_id = ? AND lease_owner = ? AND state = 'leased'",
                (SUSPECT_DEATHS, self._job, self.owner),
            )

    def abandon(self) -> None:
        """Let what is still held run out now: this worker has died, as far as others can see, and the files may be to blame."""
        with self._database.writing() as db:
            db.execute(
                "UPDATE units SET lease_until = 0 WHERE job_id = ? AND lease_owner = ? AND state = 'leased'", (self._job, self.owner)
            )

    def fence(self, unit: Unit) -> tuple[str, str, str, int]:
        """The values of `HELD`."""
        return self._job, unit.listed.name, self.owner, unit.attempt

    def _take(self, where: str, limit: int, count: str) -> list[Unit]:
        now = time.time()
        with self._database.writing() as db:
            rows = db.execute(
                f"SELECT {UNIT} FROM units WHERE {where} ORDER BY modality, name LIMIT ?", (self._job, now, self.owner, limit)
            ).fetchall()
            db.executemany(
                f"UPDATE units SET state = 'leased', attempt = attempt + 1, {count}, lease_owner = ?, lease_until = ? "
                "WHERE job_id = ? AND name = ?",
                [(self.owner, now + self.seconds, self._job, row[0]) for row in rows],
            )
        return [_unit(row) for row in rows]


HELD = "job_id = ? AND name = ? AND state = 'leased' AND lease_owner = ? AND attempt = ?"


def requeue(db: Any, job: str, transient: Iterable[str]) -> None:
    """For a new run: what a dead one had leased, and what failed with a code that time may have healed."""
    db.execute("UPDATE units SET state = 'queued', lease_owner = NULL, lease_until = NULL WHERE job_id = ? AND state = 'leased'", (job,))
    db.execute(
        "UPDATE units SET state = 'queued' WHERE job_id = ? AND state = 'failed' AND code IN (SELECT value FROM json_each(?))",
        (job, json.dumps(list(transient))),
    )


def _unit(row: tuple[Any, ...]) -> Unit:
    name, uri, size, modality, metadata, fingerprint, attempt, deaths_alone = row
    return Unit(Listed(uri, name, size, modality, json.loads(metadata), fingerprint), modality, attempt + 1, deaths_alone)
