"""Collections: vectors and metadata, durable on disk and searched exactly.

    stores ─► store ─► local ─► catalog, registry (all SQL) ─► database (connections, lock, migrations)
                          ├───► resident ─► partition ─► flat, segment (FAISS), planner      searches
                          ├───► sealing ─► segment_files, tiers                              builds segments in the background
                          └───► queries, filters, allowed, records, fields

Truth is the catalog; segments and what is in memory are caches. Memory catches up with the catalog before every search. This room imports
numpy, faiss and sqlite3, and of the project only errors, limits and vectors. It never sees a media file or a model.
`portable` carries a collection to Parquet and back; pyarrow is imported when that is asked for.
"""

from __future__ import annotations

from bindery.collections.clips import clip_id
from bindery.collections.model import (
    Collection,
    CollectionState,
    Definition,
    Hit,
    Item,
    ItemResult,
    LabelSet,
    Page,
    Query,
    SearchResult,
    check_space,
    new_item_id,
)
from bindery.collections.store import Store
from bindery.collections.stores import CollectionStore, open_store

__all__ = [
    "Collection",
    "CollectionState",
    "CollectionStore",
    "Definition",
    "Hit",
    "Item",
    "ItemResult",
    "LabelSet",
    "Page",
    "Query",
    "SearchResult",
    "Store",
    "check_space",
    "clip_id",
    "new_item_id",
    "open_store",
]
