"""Bounded in bytes: how much of a source may be in memory at the same time."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager


class Room:
    """Bytes that are taken and given back. Who wants more than there is in all waits until it has everything for itself."""

    def __init__(self, capacity: int) -> None:
        self._capacity = capacity
        self._free = capacity
        self._changed = asyncio.Condition()

    @asynccontextmanager
    async def of(self, size: int) -> AsyncIterator[None]:
        taken = min(size, self._capacity)
        async with self._changed:
            await self._changed.wait_for(lambda: self._free >= taken)
            self._free -= taken
        try:
            yield
        finally:
            self._free += taken
            async with self._changed:
                self._changed.notify_all()
