"""Turns at the one runtime that all encoders share: the next is the encoder whose first item came first.

Were they simply to alternate, a flood of texts would wait behind every single picture, and nobody could say how long: in the order of
their coming, what waits in front of an item is what came before it, whatever it is.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager


class Turns:
    """Lives on one event loop."""

    def __init__(self) -> None:
        self._taken = False
        self._waiting: list[tuple[Callable[[], float], asyncio.Future[None]]] = []

    @asynccontextmanager
    async def turn(self, since: Callable[[], float]) -> AsyncIterator[None]:
        """``since``: when the encoder's first item came, asked whenever a turn is free."""
        if self._taken:
            mine: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self._waiting.append((since, mine))
            try:
                await mine
            except asyncio.CancelledError:
                if mine.done() and not mine.cancelled():
                    self._pass_on()
                raise
        self._taken = True
        try:
            yield
        finally:
            self._pass_on()

    def _pass_on(self) -> None:
        """Whoever had the turn may want the next one, too: it comes to ask for it before the next one is chosen."""
        if self._waiting:
            asyncio.get_running_loop().call_soon(self._choose)
        else:
            self._taken = False

    def _choose(self) -> None:
        self._waiting = [(since, turn) for since, turn in self._waiting if not turn.done()]
        if not self._waiting:
            self._taken = False
            return
        first = min(self._waiting, key=lambda one: one[0]())
        self._waiting.remove(first)
        first[1].set_result(None)
