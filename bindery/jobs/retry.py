"""Which failures time may heal, and how often a file is tried before it has failed."""

from __future__ import annotations

import asyncio
import errno
import random
from collections.abc import Awaitable, Callable
from typing import TypeVar

from bindery.errors import BinderyError, DeadlineExceeded, DecoderKilled, QueueFull, SourceUnavailable, UnreadableMedia

T = TypeVar("T")

TRANSIENT: tuple[type[BinderyError], ...] = (SourceUnavailable, QueueFull, DeadlineExceeded)
"""Tried again, each time after a longer wait; and again in the next run of the job."""

TRIES = 5
DECODER_KILLS = 2
"""A decoder may die of something else once: another file's memory, a busy machine."""

_FIRST_WAIT_S = 1.0
_PASSING = frozenset(
    {errno.EIO, errno.ESTALE, errno.ETIMEDOUT, errno.EAGAIN, errno.ENFILE, errno.EMFILE, errno.ENETDOWN, errno.ENETUNREACH,
     errno.EHOSTDOWN, errno.EHOSTUNREACH, errno.ECONNRESET, errno.ENOTCONN, errno.EREMOTEIO}
)  # fmt: skip


async def with_retries(work: Callable[[], Awaitable[T]], sleep: Callable[[float], Awaitable[None]] = asyncio.sleep) -> T:
    """``work()``, again after errors that time may heal: 1, 2, 4, 8 s apart and a little by chance. Raises the last one."""
    tries = kills = 0
    while True:
        try:
            return await work()
        except TRANSIENT:
            tries += 1
            if tries == TRIES:
                raise
        except DecoderKilled:
            kills += 1
            if kills == DECODER_KILLS:
                raise
            continue
        await sleep(_FIRST_WAIT_S * 2 ** (tries - 1) * random.uniform(0.75, 1.25))


def read_error(name: str, error: OSError) -> BinderyError:
    """A file that cannot be read: for good, or for now (a network drive that is away, too many open files)."""
    told = f"{name} cannot be read: {error.strerror or error}"
    return SourceUnavailable(told) if error.errno in _PASSING else UnreadableMedia(told)
