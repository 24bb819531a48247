"""The key ring: the keys in force, from settings and a file that is read again when it changes or on SIGHUP."""

from __future__ import annotations

import asyncio
import ipaddress
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import structlog

from bindery import keys
from bindery.errors import InvalidParameter
from bindery.keys import Key
from bindery.settings import Settings

log = structlog.get_logger(__name__)

LOOK_SECONDS = 1.0

_Mark = tuple[int, int, int]
"""What a changed file changes: modification time, size, inode."""


class KeyRing:
    """``table`` is replaced as a whole, so that a request sees the old keys or the new ones."""

    def __init__(self, settings: Settings) -> None:
        """Raises `InvalidParameter` for a file that cannot be used: a server must not start with fewer keys than it was given."""
        self._fixed = settings.keys
        self._file = settings.keys_file
        self._open_beyond_loopback = not self.closed and not _is_loopback(settings.host)
        self._mark: _Mark | None = None
        self.table = self._read()

    @property
    def closed(self) -> bool:
        """Whether a key is asked for. A file without rows locks everyone out; it does not open the door."""
        return self._file is not None or bool(self._fixed)

    def find(self, secret: str) -> Key | None:
        return keys.find(secret, self.table)

    def refresh(self, *, always: bool = False) -> None:
        """Read the file again if it changed. What cannot be used is logged, and the old table stays in force."""
        if self._file is None or (not always and _mark(self._file) == self._mark):
            return
        try:
            self.table = self._read()
        except InvalidParameter as error:
            log.error("keys not read, the old ones stay", detail=error.detail)
        else:
            log.info("keys read", keys=len(self.table))

    @asynccontextmanager
    async def watched(self) -> AsyncIterator[None]:
        """Follows the file while the context lasts."""
        if self._open_beyond_loopback:
            log.warning("no keys are set: whoever reaches this address may read, write and delete; see docs/deploy.md")
        if self._file is None:
            yield
            return
        hung_up = asyncio.Event()
        loop = asyncio.get_running_loop()
        handled = _on_hang_up(loop, hung_up)
        watch = asyncio.create_task(self._watch(hung_up), name="keys-watch")
        try:
            yield
        finally:
            watch.cancel()
            await asyncio.gather(watch, return_exceptions=True)
            if handled:
                loop.remove_signal_handler(signal.SIGHUP)

    async def _watch(self, hung_up: asyncio.Event) -> None:
        while True:
            with suppress(TimeoutError):
                await asyncio.wait_for(hung_up.wait(), LOOK_SECONDS)
            asked = hung_up.is_set()
            hung_up.clear()
            await asyncio.to_thread(self.refresh, always=asked)

    def _read(self) -> tuple[Key, ...]:
        if self._file is None:
            keys.check_names(self._fixed, "BINDERY_KEYS")
            return self._fixed
        # The mark is taken before the file is read: a change in between is seen at the next look. One try for each change.
        self._mark = _mark(self._file)
        table = (*self._fixed, *keys.read_keys(self._file))
        keys.check_names(table, f"BINDERY_KEYS and the keys file {self._file}")
        return table


def _mark(path: Path) -> _Mark | None:
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_mtime_ns, found.st_size, found.st_ino


def _on_hang_up(loop: asyncio.AbstractEventLoop, event: asyncio.Event) -> bool:
    try:
        loop.add_signal_handler(signal.SIGHUP, event.set)
    except (ValueError, RuntimeError, NotImplementedError):  # not the main thread, or no such signal here: looking is enough
        return False
    return True


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
