"""Two classes of work, one order: interactive before batch, but batch work that has waited long enough goes first all the same."""

from __future__ import annotations

import asyncio
import math
import time
from collections import deque
from typing import Generic, Literal, TypeVar

Priority = Literal["interactive", "batch"]
AGE_S = 5.0
"""Batch work is served as if it had come this much later: nothing interactive that comes after that overtakes it."""

T = TypeVar("T")


class Lanes(Generic[T]):
    def __init__(self) -> None:
        self._interactive: deque[tuple[float, T]] = deque()
        self._batch: deque[tuple[float, T]] = deque()

    def __len__(self) -> int:
        return len(self._interactive) + len(self._batch)

    def push(self, item: T, priority: Priority) -> None:
        now = time.monotonic()
        if priority == "batch":
            self._batch.append((now + AGE_S, item))
        else:
            self._interactive.append((now, item))

    @property
    def age_s(self) -> float:
        """How long the first that came has waited; 0 when there is nothing."""
        now = time.monotonic()
        interactive = self._interactive[0][0] if self._interactive else now
        batch = self._batch[0][0] - AGE_S if self._batch else now
        return now - min(interactive, batch)

    @property
    def first_since(self) -> float:
        """Since when the one that `pop` would give waits, as it counts among the others; infinite when there is nothing."""
        return min((lane[0][0] for lane in (self._interactive, self._batch) if lane), default=math.inf)

    def pop(self) -> T:
        """Whatever is first. Raises `IndexError` when there is nothing."""
        if self._batch and (not self._interactive or self._batch[0][0] < self._interactive[0][0]):
            return self._batch.popleft()[1]
        return self._interactive.popleft()[1]


class Turnstile:
    """Lets ``width`` pass at a time, the others in the order of `Lanes`. Who was cancelled while waiting is never let in."""

    def __init__(self, width: int) -> None:
        self.width = width
        self._free = width
        self._waiting: Lanes[asyncio.Future[None]] = Lanes()

    async def enter(self, priority: Priority) -> None:
        if self._free:
            self._free -= 1
            return
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.push(turn, priority)
        try:
            await turn
        except asyncio.CancelledError:
            if not turn.cancelled():  # its turn came in the same moment
                self.leave()
            raise

    def leave(self) -> None:
        while self._waiting:
            turn = self._waiting.pop()
            if not turn.done():
                turn.set_result(None)
                return
        self._free += 1
