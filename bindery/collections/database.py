"""The SQLite file under a catalog: connections, one writer at a time over all processes, migrations, errors in words.

Writers, in whatever process, take turns: each transaction holds an advisory lock on `catalog.lock`. SQLite's own locking
would also keep two writers apart, but releases before 3.51.3 can damage a WAL file when two connections write and
checkpoint at the same moment, and distributions still ship those. Readers take no lock and never wait. A process
that dies gives its lock back with its life. Local file systems only, as for SQLite's WAL itself.
"""

from __future__ import annotations

import fcntl
import queue
import sqlite3
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from importlib import resources
from pathlib import Path

from bindery.errors import CatalogDamaged, CatalogTooNew, DeadlineExceeded, InvalidParameter, StorageFull

APPLICATION_ID = 0x626E6472  # "bndr", in the file's header
LOCK_WAIT_S = 30.0  # for another process's transaction; each lasts milliseconds, so this long means it hangs
_IDLE_READERS = 8
_UNWRITABLE = (sqlite3.SQLITE_IOERR_WRITE, sqlite3.SQLITE_IOERR_FSYNC, sqlite3.SQLITE_IOERR_TRUNCATE, sqlite3.SQLITE_IOERR_SHMSIZE)
"""What SQLite calls a failed write that is not a full disk: a quota, a bound on a file's size, a disk that refuses."""


class Database:
    """One file. ``reading`` and ``writing`` give connections; both may be entered from any thread.

    ``room``: the package whose `migrations` make its tables.
    """

    def __init__(self, path: Path, room: str = "bindery.collections") -> None:
        self.path = path
        self._room = room
        self._idle: queue.LifoQueue[sqlite3.Connection] = queue.LifoQueue(_IDLE_READERS)
        self._turn = threading.Lock()
        with self._in_words(), ExitStack() as undo:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._lock_file = undo.enter_context(path.with_suffix(".lock").open("a"))
            with self._process_lock():
                self._writer = self._connect()
                undo.callback(self._writer.close)
                self._migrate()
            undo.pop_all()

    @property
    def size_bytes(self) -> int:
        """Of the file and of its write-ahead log."""
        files = (self.path, self.path.with_name(self.path.name + "-wal"))
        return sum(file.stat().st_size for file in files if file.exists())

    @contextmanager
    def reading(self) -> Iterator[sqlite3.Connection]:
        """A connection whose reads all see the same moment."""
        with self._in_words():
            connection = self._reader()
            try:
                connection.execute("BEGIN")
                yield connection
            finally:
                if connection.in_transaction:
                    connection.execute("ROLLBACK")
                self._give_back(connection)

    @contextmanager
    def writing(self) -> Iterator[sqlite3.Connection]:
        """The writing connection inside a transaction: on disk when the block is left, undone when it raises."""
        with self._in_words(), self._turn, self._process_lock():
            self._writer.execute("BEGIN IMMEDIATE")
            try:
                yield self._writer
                if self._writer.in_transaction:  # else the block has taken it back itself
                    self._writer.execute("COMMIT")
            finally:
                if self._writer.in_transaction:
                    self._writer.execute("ROLLBACK")

    def close(self) -> None:
        """Readers first: the last connection to close checkpoints, and that must be the one under the lock."""
        while not self._idle.empty():
            self._idle.get_nowait().close()
        if self._lock_file.closed:
            return
        with self._in_words(), self._turn, self._process_lock():
            self._writer.close()
        self._lock_file.close()

    def _connect(self) -> sqlite3.Connection:
        connection = sqlite3.connect(self.path, isolation_level=None, check_same_thread=False, timeout=LOCK_WAIT_S)
        for pragma in ("page_size = 8192", "journal_mode = WAL", "synchronous = FULL", "foreign_keys = ON"):
            connection.execute(f"PRAGMA {pragma}")
        return connection

    def _reader(self) -> sqlite3.Connection:
        try:
            return self._idle.get_nowait()
        except queue.Empty:
            connection = self._connect()
            connection.execute("PRAGMA query_only = ON")
            return connection

    def _give_back(self, connection: sqlite3.Connection) -> None:
        try:
            self._idle.put_nowait(connection)
        except queue.Full:
            connection.close()

    @contextmanager
    def _process_lock(self) -> Iterator[None]:
        give_up = time.monotonic() + LOCK_WAIT_S
        while True:
            try:
                fcntl.flock(self._lock_file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() > give_up:
                    raise DeadlineExceeded(
                        f"another process holds {self.path.with_suffix('.lock')} for over {LOCK_WAIT_S:.0f} s (stage: storage); is it hung?"
                    ) from None
                time.sleep(0.002)
        try:
            yield
        finally:
            fcntl.flock(self._lock_file, fcntl.LOCK_UN)

    def _migrate(self) -> None:
        version: int = self._writer.execute("PRAGMA user_version").fetchone()[0]
        known = _migrations(self._room)
        if version > len(known):
            raise CatalogTooNew(f"{self.path} has schema {version}; this bindery reads up to {len(known)}. Upgrade bindery")
        if version == 0 and self._writer.execute("SELECT count(*) FROM sqlite_schema").fetchone()[0]:
            raise CatalogDamaged(f"{self.path} is a database of another program; give another data directory")
        if version > 0 and self._writer.execute("PRAGMA application_id").fetchone()[0] != APPLICATION_ID:
            raise CatalogDamaged(f"{self.path} is a database of another program; give another data directory")
        for number, script in enumerate(known[version:], start=version + 1):
            # In one transaction with the version, so that a crash leaves the old schema or the new one.
            self._writer.executescript(
                f"BEGIN IMMEDIATE;\n{script}\nPRAGMA application_id = {APPLICATION_ID};\nPRAGMA user_version = {number};\nCOMMIT;"
            )

    @contextmanager
    def _in_words(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.DatabaseError as error:
            code = getattr(error, "sqlite_errorcode", None)
            primary = code & 0xFF if code is not None else None  # the low byte; the rest refines it
            if primary == sqlite3.SQLITE_FULL or code in _UNWRITABLE:
                raise StorageFull(
                    f"no space left to write {self.path} ({error}); free some, or raise its quota: nothing of this request was stored"
                ) from error
            if primary in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_IOERR):
                raise CatalogDamaged(
                    f"{self.path} cannot be read ({error}); restore it from a backup, or move it away and index again"
                ) from error
            if primary in (sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_READONLY, sqlite3.SQLITE_PERM):
                raise _unusable(self.path, str(error)) from error
            if primary in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
                raise DeadlineExceeded(f"{self.path} stayed locked by another program (stage: storage)") from error
            raise
        except (PermissionError, FileExistsError, NotADirectoryError) as error:
            raise _unusable(self.path, str(error.strerror)) from error


def _unusable(path: Path, reason: str) -> InvalidParameter:
    return InvalidParameter(f"data directory {path.parent} cannot be used: {reason}; it must be a directory that this user may write")


def _migrations(room: str) -> list[str]:
    """The scripts in order; the n-th takes a catalog from schema n-1 to n."""
    folder = resources.files(room) / "migrations"
    scripts = sorted((entry for entry in folder.iterdir() if entry.name.endswith(".sql")), key=lambda entry: entry.name)
    return [script.read_text(encoding="utf-8") for script in scripts]
