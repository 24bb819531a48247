"""Inputs that lie elsewhere: a URL as an item's value, and who fetches it, beside the event loop and a few at a time."""

from __future__ import annotations

import asyncio
import os
import tempfile
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from time import monotonic

from bindery.disk import full_disk_told
from bindery.errors import DeadlineExceeded, UrlFetchFailed
from bindery.limits import Limits
from bindery.media.fetch import Resolve, UrlPolicy, check_url, fetch, resolve
from bindery.media.source import Source
from bindery.settings import Settings

_SCHEMES = {"off": frozenset[str](), "https": frozenset({"https"}), "http_and_https": frozenset({"http", "https"})}


@dataclass(frozen=True, slots=True)
class Remote:
    """An input that has to be fetched first."""

    url: str
    name: str


def policy_of(settings: Settings) -> UrlPolicy:
    limits = settings.limits
    return UrlPolicy(
        schemes=_SCHEMES[settings.url_inputs],
        hosts=settings.url_hosts,
        most_chars=limits.url_chars,
        most_bytes=min(limits.url_bytes, limits.file_bytes),
        connect_seconds=limits.url_connect_seconds,
        total_seconds=limits.url_seconds,
        redirects=limits.url_redirects,
    )


class Fetcher:
    """Its threads are few and its own: names and servers that are slow hold up other URLs, and nothing else."""

    def __init__(self, policy: UrlPolicy, limits: Limits, resolver: Resolve = resolve) -> None:
        self._policy = policy
        self._resolver = resolver
        self._threads = ThreadPoolExecutor(limits.url_fetches, thread_name_prefix="url-fetch")

    async def fetch(self, remote: Remote, folder: Path, deadline: float) -> Source:
        """The file, in ``folder``, which is the caller's to delete.

        ``deadline`` is the request's, on `time.monotonic`. Raises what `bindery.media.fetch.fetch` raises, and
        `DeadlineExceeded`.
        """
        check_url(remote.url, self._policy)  # what is refused anyhow waits for no thread
        with full_disk_told("what is at the URL cannot be written to the temporary folder of this server; send it again later"):
            handle, name = tempfile.mkstemp(dir=folder)
        os.close(handle)
        path, gone = Path(name), threading.Event()
        until = min(deadline, monotonic() + self._policy.total_seconds)
        work = self._threads.submit(fetch, remote.url, path, self._policy, deadline=until, gone=gone, resolver=self._resolver)
        try:
            # A margin, so that the thread's own word on what was late comes first; a name that does not resolve has no other bound.
            async with asyncio.timeout(until - monotonic() + 0.1):
                await asyncio.wrap_future(work)
        except (TimeoutError, UrlFetchFailed) as error:
            if monotonic() >= deadline:
                raise DeadlineExceeded("the deadline passed in stage fetch, while a URL was being fetched") from error
            if isinstance(error, UrlFetchFailed):
                raise
            raise UrlFetchFailed("the URL could not be fetched in time") from error
        finally:
            gone.set()
        return Source(remote.name, path=path)

    def close(self) -> None:
        self._threads.shutdown(wait=False, cancel_futures=True)
