"""Object stores as a source: `s3://BUCKET/PREFIX` of any server that speaks the S3 protocol, through obstore.

Keys, region and endpoint come from where every S3 client looks for them: `AWS_ACCESS_KEY_ID`, `AWS_REGION`,
`AWS_ENDPOINT_URL`, ... or the machine's own role.
"""

from __future__ import annotations

import re
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from datetime import timedelta
from importlib import import_module
from pathlib import PurePosixPath
from typing import Any

from bindery.errors import BinderyError, InvalidParameter, SourceUnavailable, UnreadableMedia
from bindery.extras import needing
from bindery.jobs.listing import Allowed, Listed, Rule, Unlisted, hidden, ruled, wanted
from bindery.jobs.sources.spool import spooled
from bindery.limits import MIB
from bindery.media.source import Source

SCHEME = "s3://"

_PAGE = 1000
_PIECE = MIB
# The job tries again by itself, and says so; a client that keeps trying for minutes would hide that a store is gone.
_RETRIES = {"max_retries": 2, "retry_timeout": timedelta(seconds=20)}
_REFUSED = re.compile(r"status code: 4(?!08|29)\d\d")  # what another try does not change; some calls say it only in words
_CLIENT = {"connect_timeout": "5s", "timeout": "300s", "allow_http": True}  # an endpoint with http:// was meant so


class Objects:
    """Objects by their `s3://` names. Any thread may call; buckets are opened once."""

    def __init__(self) -> None:
        self._stores: dict[str, Any] = {}
        self._opening = threading.Lock()

    def listed(self, uri: str, name: str) -> tuple[int, str]:
        """Size in bytes and fingerprint of one object. Raises `UnreadableMedia`, `SourceUnavailable`, `InvalidParameter`."""
        bucket, key = parted(uri)
        with _in_words(name):
            return _facts(self.store(bucket).head(key))

    @contextmanager
    def opened(self, listed: Listed) -> Iterator[Source]:
        """Its bytes. Raises as `listed`, and `UnreadableMedia` when it has changed since it was listed."""
        bucket, key = parted(listed.uri)
        with _in_words(listed.name):
            found = self.store(bucket).get(key)
            size, fingerprint = _facts(found.meta)
        if listed.fingerprint not in ("", fingerprint):
            raise UnreadableMedia(f"{listed.name} has changed since it was listed; the next run takes it")
        with spooled(listed.name, _pieces(found, listed.name, size)) as source:
            yield source

    def store(self, bucket: str) -> Any:
        with self._opening:
            if bucket not in self._stores:
                with needing("s3", f"a source {SCHEME}...", pointer="/source"):
                    obstore = import_module("obstore.store")
                self._stores[bucket] = obstore.S3Store(bucket, retry_config=_RETRIES, client_options=_CLIENT)
            return self._stores[bucket]


class ObjectListing:
    """Implements `Listing`: every object below a prefix, in the order of their keys. Hidden ones and empty folder marks are left out."""

    def __init__(self, source: str, include: Sequence[str], rules: Sequence[Rule], _: Allowed) -> None:
        self._bucket, self._prefix = parted(source, whole=False)
        self._include = include
        self._rules = rules
        self._objects = Objects()

    def __iter__(self) -> Iterator[Listed | Unlisted]:
        place = f"{SCHEME}{self._bucket}/{self._prefix}".rstrip("/")
        pages = self._objects.store(self._bucket).list(self._prefix or None, chunk_size=_PAGE)
        with _in_words(place, whole=True):
            for page in pages:
                yield from (entry for found in page if (entry := self._entry(found)) is not None)

    def opened(self, listed: Listed) -> AbstractContextManager[Source]:
        return self._objects.opened(listed)

    def _entry(self, found: Any) -> Listed | None:
        key = str(found["path"])
        name = key.removeprefix(self._prefix).lstrip("/") or key
        uri = f"{SCHEME}{self._bucket}/{key}"
        size, fingerprint = _facts(found)
        is_folder = size == 0 and not PurePosixPath(key).suffix  # the mark that some tools leave; its slash is lost on the way
        if is_folder or hidden(name) or not wanted(name, self._include):
            return None
        return Listed(uri, name, size, ruled(name, self._rules), fingerprint=fingerprint)


def parted(uri: str, *, whole: bool = True) -> tuple[str, str]:
    """Bucket and key; ``whole``: there must be a key, else it may be a prefix. Raises `InvalidParameter`."""
    bucket, _, key = uri.removeprefix(SCHEME).partition("/")
    if not whole:
        key = key.rstrip("/")
    steps = key.split("/") if key else []
    if not bucket or (whole and not key) or any(step in ("", ".", "..") for step in steps):
        raise InvalidParameter(f"{uri[:200]!r} is no name of the kind s3://BUCKET/KEY", pointer="/source")
    return bucket, key


def _facts(meta: Any) -> tuple[int, str]:
    mark = meta.get("e_tag") or meta["last_modified"].isoformat()
    return int(meta["size"]), f"{meta['size']}-{mark}"


def _pieces(found: Any, name: str, size: int) -> Iterator[bytes]:
    got = 0
    with _in_words(name):
        for piece in found.stream(min_chunk_size=_PIECE):
            got += len(piece)
            yield bytes(piece)
    if got != size:
        raise SourceUnavailable(f"{name} broke off after {got} of {size} bytes")


@contextmanager
def _in_words(name: str, *, whole: bool = False) -> Iterator[None]:
    """``whole``: what was asked for is the source itself, not one file of it."""
    errors = import_module("obstore.exceptions")
    permanent: Callable[[str], BinderyError] = InvalidParameter if whole else UnreadableMedia
    try:
        yield
    except (errors.NotFoundError, FileNotFoundError) as error:
        raise permanent(f"{name} is not there, or its bucket is not") from error
    except (errors.PermissionDeniedError, errors.UnauthenticatedError, PermissionError) as error:
        raise permanent(f"{name} may not be read with the keys that this process has (AWS_ACCESS_KEY_ID)") from error
    except (errors.InvalidPathError, errors.NotSupportedError) as error:
        raise permanent(f"{name} has a name that object stores do not take") from error
    except errors.BaseError as error:
        reason = str(error).splitlines()[0][:300]
        if _REFUSED.search(reason):
            raise permanent(f"{name} cannot be had: {reason}") from error
        raise SourceUnavailable(f"{name} cannot be fetched: {reason}") from error
