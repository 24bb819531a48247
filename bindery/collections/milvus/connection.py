"""One Milvus: each call with a time limit and Strong consistency, each error as a row of our table."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import grpc
from pymilvus import CollectionSchema, MilvusClient, MilvusException
from pymilvus.milvus_client.index import IndexParams

from bindery.errors import InvalidParameter, StorageFull, StoreUnavailable, UnknownCollection

T = TypeVar("T")
Row = dict[str, Any]

MOST_ROWS = 16_384
"""Rows of one answer: Milvus' own bound on ``limit``."""

# It logs every error with its traceback besides raising it; what is raised here is told by whoever catches it.
logging.getLogger("pymilvus").setLevel(logging.CRITICAL)

# Milvus' codes (pkg/util/merr): a collection or an alias that is not there; memory, disk or quota used up.
_NOT_THERE = frozenset({100, 1600})
_FULL = frozenset({3, 7, 9})
_NOT_LOADED = 101
_STRONG = "Strong"
_PING_MS = 300_000  # pymilvus pings every ten seconds, and a server that does not like it ends the connection (too_many_pings)
_RECONNECT_MS = 2000  # else gRPC waits up to two minutes before it looks again for a Milvus that was away for long


class Connection:
    """Connects when it is first used, and again when that failed: a Milvus may come up later. Any thread may call.

    Every method raises `StoreUnavailable` when Milvus does not answer in time or refuses, `StorageFull` when its memory, disk or
    quota is used up, and `UnknownCollection` for a collection or alias that is not there.
    """

    def __init__(self, uri: str, token: str | None, timeout_s: float) -> None:
        """Raises `InvalidParameter` for a ``uri`` that names no Milvus."""
        if not uri.startswith(("http://", "https://", "tcp://", "unix:")) and not uri.endswith(".db"):
            raise InvalidParameter(
                f"{uri!r} names no Milvus: it is http://HOST:PORT, https://…, unix:…, or a path that ends with .db for Milvus Lite"
            )
        self._uri = uri
        self._token = token or ""
        self._timeout_s = timeout_s
        self._client: MilvusClient | None = None
        self._guard = threading.Lock()

    def close(self) -> None:
        with self._guard:
            if self._client is not None:
                self._client.close()
                self._client = None

    def has_collection(self, name: str) -> bool:
        return bool(self._ask(lambda client, timeout: client.has_collection(name, timeout=timeout)))

    def create_collection(self, name: str, schema: CollectionSchema, indexes: IndexParams) -> None:
        self._ask(
            lambda client, timeout: client.create_collection(
                name, schema=schema, index_params=indexes, consistency_level=_STRONG, timeout=timeout
            )
        )

    def drop_collection(self, name: str) -> None:
        """One that is not there is no error."""
        self._ask(lambda client, timeout: client.drop_collection(name, timeout=timeout))

    def create_alias(self, alias: str, collection: str) -> None:
        self._ask(lambda client, timeout: client.create_alias(collection, alias, timeout=timeout))

    def alter_alias(self, alias: str, collection: str) -> None:
        self._ask(lambda client, timeout: client.alter_alias(collection, alias, timeout=timeout))

    def drop_alias(self, alias: str) -> None:
        self._ask(lambda client, timeout: client.drop_alias(alias, timeout=timeout))

    def aliased(self, alias: str) -> str | None:
        """The collection that an alias leads to."""
        try:
            found = self._ask(lambda client, timeout: client.describe_alias(alias, timeout=timeout))
        except UnknownCollection:
            return None
        return str(found["collection_name"])

    def aliases(self, collection: str) -> list[str]:
        found = self._ask(lambda client, timeout: client.list_aliases(collection, timeout=timeout))
        return list(found["aliases"])

    def upsert(self, collection: str, rows: Sequence[Row]) -> None:
        self._ask(lambda client, timeout: client.upsert(collection, list(rows), timeout=timeout), collection)

    def delete(self, collection: str, expression: str) -> None:
        self._ask(lambda client, timeout: client.delete(collection, filter=expression, timeout=timeout), collection)

    def count(self, collection: str, expression: str = "") -> int:
        rows = self._ask(
            lambda client, timeout: client.query(
                collection, filter=expression, output_fields=["count(*)"], timeout=timeout, consistency_level=_STRONG
            ),
            collection,
        )
        return int(rows[0]["count(*)"])

    def rows(self, collection: str, expression: str, columns: Sequence[str], limit: int = MOST_ROWS) -> list[Row]:
        """Up to ``limit`` rows, those with the lowest primary keys, in their order."""
        found = self._ask(
            lambda client, timeout: client.query(
                collection,
                filter=expression,
                output_fields=list(columns),
                limit=limit,
                timeout=timeout,
                consistency_level=_STRONG,
                # What makes Milvus give the lowest keys, and not just any rows; its own iterator asks so.
                iterator="True",
                reduce_stop_for_best="True",
            ),
            collection,
        )
        return [dict(row) for row in found]

    def search(
        self, collection: str, vector: Any, expression: str, columns: Sequence[str], limit: int, offset: int, parameters: dict[str, Any]
    ) -> list[tuple[float, Row]]:
        """Inner product and row of the nearest, best first."""
        found = self._ask(
            lambda client, timeout: client.search(
                collection,
                data=[vector],
                anns_field="vector",
                filter=expression,
                limit=limit,
                output_fields=list(columns),
                search_params={"metric_type": "IP", "offset": offset, "params": parameters},
                timeout=timeout,
                consistency_level=_STRONG,
            ),
            collection,
        )
        return [(float(hit["distance"]), dict(hit["entity"])) for hit in found[0]]

    def _ask(self, call: Callable[[MilvusClient, float], T], collection: str | None = None) -> T:
        """``collection``: what to load first, should it not be loaded."""
        try:
            client = self._connected()
            try:
                return call(client, self._timeout_s)
            except MilvusException as error:
                if error.code != _NOT_LOADED or collection is None:
                    raise
            # Somebody released it, or it is a Milvus Lite that was started again.
            client.load_collection(collection, timeout=self._timeout_s)
            return call(client, self._timeout_s)
        except MilvusException as error:
            raise self._translated(error) from error
        except (grpc.RpcError, grpc.FutureTimeoutError) as error:
            raise StoreUnavailable("Milvus did not answer in time", retry_after_ms=1000) from error

    def _connected(self) -> MilvusClient:
        with self._guard:
            if self._client is None:
                self._client = MilvusClient(
                    uri=self._uri,
                    token=self._token,
                    timeout=self._timeout_s,
                    grpc_options={"grpc.max_reconnect_backoff_ms": _RECONNECT_MS, "grpc.keepalive_time_ms": _PING_MS},
                )
            return self._client

    def _translated(self, error: MilvusException) -> Exception:
        # The message may name hosts and fields that are no caller's business: it is in the log, as this error's cause.
        if error.code in _NOT_THERE:
            return UnknownCollection("Milvus has no such collection")
        if error.code in _FULL:
            return StorageFull("Milvus takes no more: its memory, disk or quota is used up", retry_after_ms=10_000)
        return StoreUnavailable("Milvus cannot be reached, or refused the call; the log says why", retry_after_ms=1000)
