"""A collection that embeds for you: files and words in, hits out. The notebook's side of `bindery.collections`.

collection = bindery.open_collection("archive", data_dir="./data", create=True)
collection.add("audio", ["dog.wav", "rain.wav"])
collection.search(text="a dog barking", top_k=5)
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np

from bindery.collections import Collection, CollectionStore, Item, ItemResult, Query, SearchResult, Store, check_space, new_item_id
from bindery.embedder import Embedder, load
from bindery.errors import AlreadyExists, BinderyError, BundleNotFound, InvalidParameter
from bindery.in_memory import Input
from bindery.kinds import KINDS, parse_options
from bindery.moments import Medium, store_media
from bindery.spec import PartOptions
from bindery.vectors import Vectors, normalize

_ADDED_AT_ONCE = 16  # items in one commit: what a crash or a Ctrl-C can lose


class SearchableCollection:
    """A collection and the model that belongs to its space; the model is opened when something needs embedding."""

    def __init__(self, store: CollectionStore, collection: Collection, model: Embedder | None = None) -> None:
        self._store = store
        self._model = model
        self.collection = collection
        if model is not None:
            check_space(collection.definition, model.space, f"bundle {model.bundle.name!r}")

    @property
    def name(self) -> str:
        return self.collection.definition.name

    @property
    def model(self) -> Embedder:
        """Raises `BundleNotFound` when the collection's bundle is not where bundles are looked for: then give ``model``."""
        if self._model is None:
            try:
                model = load(self.collection.definition.bundle)
            except BundleNotFound as error:
                raise BundleNotFound(
                    f"{error.detail}. Collection {self.name!r} was made with it: open the collection with model="
                ) from error
            check_space(self.collection.definition, model.space, f"bundle {model.bundle.name!r}")
            self._model = model
        return self._model

    def add(
        self,
        modality: str,
        inputs: Input | Sequence[Input],
        ids: Sequence[str] | None = None,
        metadata: Mapping[str, Any] | Sequence[Mapping[str, Any]] | None = None,
        **options: object,
    ) -> list[ItemResult]:
        """Embed and store: one result for each input, in order. Inputs that cannot be read fail alone.

        A file given by path has that as its id unless ``ids`` says otherwise, so adding it again replaces it, and the
        absolute path as its `uri`; other inputs get a new id. ``metadata``: one object for all, or one for each. Committed in small steps.

        With ``clip_seconds`` (and ``clip_stride``), or ``clip_by="scenes"``, a video or a sound that is longer is stored as its
        clips, `ID#start-end` each, in place of all that was stored under its id; its result tells of each clip.
        """
        values = list(inputs) if isinstance(inputs, list | tuple) else [inputs]
        paths = [_path(modality, value, self.model) for value in values]
        uris = [None if path is None else os.path.abspath(path) for path in paths]
        names = list(ids) if ids is not None else [path or new_item_id() for path in paths]
        facts = [metadata or {}] * len(values) if metadata is None or isinstance(metadata, Mapping) else list(metadata)
        if len(names) != len(values) or len(facts) != len(values):
            raise InvalidParameter(f"{len(values)} inputs came with {len(names)} ids and {len(facts)} metadata; the numbers must agree")
        parsed = parse_options(self.model.bundle.modality(modality).kind, options)  # a wrong option is the caller's, not each input's
        if isinstance(parsed, PartOptions) and parsed.clip_seconds is not None:
            rows = zip(values, names, uris, facts, strict=True)
            return [self._add_clips(modality, value, id, uri, one, options) for value, id, uri, one in rows]
        results: list[ItemResult] = []
        for start in range(0, len(values), _ADDED_AT_ONCE):
            part = slice(start, start + _ADDED_AT_ONCE)
            vectors = list(self.model.embed_each(modality, values[part], **options))
            results += self._store_each(modality, vectors, names[part], uris[part], facts[part], options)
        return results

    def search(
        self,
        *,
        text: str | None = None,
        file: Input | None = None,
        vector: Vectors | Sequence[float] | None = None,
        item: str | None = None,
        mix: Sequence[Mapping[str, Any]] | None = None,
        modality: str | None = None,
        modalities: Sequence[str] | None = None,
        top_k: int = 10,
        filter: Mapping[str, Any] | None = None,
        group_by: str | None = None,
        min_score: float | None = None,
        offset: int = 0,
        include_embedding: bool = False,
        exact: bool = False,
        centred: bool = False,
    ) -> SearchResult:
        """Hits, best first, for one of: words, a file (``modality`` says what it is), a vector, a stored item, a mix.

        ``modalities``: which to return (all). Without ``file``, ``modality`` means the same for a single one. ``mix``: parts like
        ``{"text": "rain", "weight": -0.5}`` or ``{"file": "dog.wav", "modality": "audio"}``; a weight is 1 unless given. A stored
        item is not among its own hits. ``exact``: compare with every vector, whatever the index.
        ``centred``: scores without what all vectors of a modality have in common, so that hits of several modalities compare.
        """
        if sum(way is not None for way in (text, file, vector, item, mix)) != 1:
            raise InvalidParameter("a search takes one of text, file, vector, item and mix")
        whole: list[Mapping[str, Any]] = [{"text": text, "file": file, "modality": modality, "vector": vector, "item": item}]
        if mix is not None:
            whole = list(mix)
            if not all(isinstance(part, Mapping) for part in whole):
                raise InvalidParameter('a part of a mix is a mapping, such as {"text": "rain", "weight": -0.5}', pointer="/mix")
        wanted = modalities if modalities is not None or file is not None or modality is None else [modality]
        query = Query(
            vector=blend([self._vector(part) for part in whole], [_weight(part) for part in whole]),
            top_k=top_k,
            modalities=None if wanted is None else tuple(wanted),
            filter=filter,
            group_by=group_by,
            min_score=min_score,
            offset=offset,
            include_embedding=include_embedding,
            query_modality=self._asked_with(whole),
            exact=exact,
            centred=centred,
            exclude_ids=tuple(part["item"] for part in whole if part.get("item") is not None),
        )
        return self.collection.search(query)

    def get(self, id: str) -> Item:
        """Raises `UnknownItem`."""
        return self.collection.get(id)

    def delete(self, ids: Iterable[str] | None = None, *, filter: Mapping[str, Any] | None = None) -> int:
        """Remove by ids or by filter; how many went away."""
        return self.collection.delete(ids=ids, filter=filter)

    def __len__(self) -> int:
        return len(self.collection)

    def __repr__(self) -> str:
        return f"<collection {self.name!r}: {len(self)} items>"

    def close(self) -> None:
        self._store.close()

    def __enter__(self) -> SearchableCollection:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def _add_clips(
        self, modality: str, value: Input, id: str, uri: str | None, metadata: Mapping[str, Any], options: Mapping[str, object]
    ) -> ItemResult:
        try:
            clips = self.model.embed_clips(modality, value, **options)
        except BinderyError as error:
            return ItemResult(id, "failed", error)
        (result,) = store_media(self.collection, [Medium(id, modality, clips, uri, metadata)])
        return result

    def _store_each(
        self,
        modality: str,
        vectors: Sequence[Vectors | BinderyError],
        ids: Sequence[str],
        uris: Sequence[str | None],
        metadata: Sequence[Mapping[str, Any]],
        options: Mapping[str, object],
    ) -> list[ItemResult]:
        items = [
            Item(id, modality, vector, uri, _seconds(options, "start"), _seconds(options, "end"), facts)
            for id, vector, uri, facts in zip(ids, vectors, uris, metadata, strict=True)
            if not isinstance(vector, BinderyError)
        ]
        lasts = KINDS[self.model.bundle.modality(modality).kind].measure is not None
        stored = iter(self.collection.upsert(items, media=[item.id for item in items] if lasts else ()))
        return [
            ItemResult(id, "failed", vector) if isinstance(vector, BinderyError) else next(stored)
            for id, vector in zip(ids, vectors, strict=True)
        ]

    def _asked_with(self, parts: Sequence[Mapping[str, Any]]) -> str | None:
        """The modality of all parts, when it is one and known."""
        (first, *others) = {self._modality(part) for part in parts}
        return None if others else first

    def _modality(self, part: Mapping[str, Any]) -> str | None:
        if part.get("text") is not None:
            return self.model.bundle.text_modality()
        if part.get("item") is not None:
            return self.collection.get(part["item"]).modality
        return None if part.get("file") is None else str(part.get("modality"))

    def _vector(self, part: Mapping[str, Any]) -> Vectors:
        if part.get("text") is not None:
            return self._embed(self.model.bundle.text_modality(), part["text"])
        if part.get("file") is not None:
            if part.get("modality") is None:
                raise InvalidParameter(f"a file needs its modality, one of {', '.join(self.model.modalities)}", pointer="/modality")
            return self._embed(part["modality"], part["file"])
        if part.get("item") is not None:
            return self.collection.get(part["item"]).vector
        if part.get("vector") is not None:
            return np.asarray(part["vector"], dtype=np.float32)
        raise InvalidParameter("each part of a mix takes one of text, file, vector and item", pointer="/mix")

    def _embed(self, modality: str, value: Input) -> Vectors:
        vectors = self.model.embed(modality, [value])  # (1, d)
        return vectors.reshape(-1)


def open_collection(
    name: str,
    data_dir: str | Path = "data",
    model: Embedder | str | None = None,
    create: bool = False,
    *,
    fields: Mapping[str, str] | None = None,
    store: CollectionStore | None = None,
) -> SearchableCollection:
    """Open a collection of a data directory. ``create`` makes it when it is missing, in the space of ``model``, with ``fields``:
    the metadata that filters may ask for, each a `keyword`, `integer`, `number`, `boolean` or `datetime`.

    ``model``: an `Embedder`, a bundle's name or directory; by default the bundle the collection was made with ("starter" for
    a new one). ``store``: another store than that of ``data_dir``, such as a `MilvusStore`; closing the collection closes it.
    A service may run on the same store. Raises `UnknownCollection`, `AlreadyExists` (with other fields), `SpaceMismatch`,
    `CatalogDamaged`, bundle errors.
    """
    opened = load(model) if isinstance(model, str) else model
    store = store or Store(data_dir, make=create)
    try:
        if create and name in store:
            found = store.get(name).definition
            if fields is not None and found.fields != dict(fields):
                raise AlreadyExists(f"collection {name!r} has the fields {dict(found.fields)}")
        elif create:
            opened = opened or load()
            store.create(name, space=opened.space, dimension=opened.dimension, bundle=opened.bundle.name, fields=fields)
        return SearchableCollection(store, store.get(name), opened)
    except BaseException:
        store.close()
        raise


def blend(vectors: Sequence[Vectors], weights: Sequence[float]) -> Vectors:
    """One unit vector ``(d,)`` from weighted query vectors ``(d,)``, each brought to unit length first; weights may be negative.

    Raises `InvalidParameter` when there is nothing to blend, shapes differ, or the parts cancel out.
    """
    if not vectors or len(vectors) != len(weights):
        raise InvalidParameter("a mix needs at least one part, and a weight for each", pointer="/mix")
    if not all(math.isfinite(weight) for weight in weights):
        raise InvalidParameter("weights must be finite numbers", pointer="/mix")
    rows = [np.asarray(vector, dtype=np.float32) for vector in vectors]
    if any(row.ndim != 1 or row.shape != rows[0].shape for row in rows):
        raise InvalidParameter(f"the parts of a mix have shapes {[row.shape for row in rows]}; they must be equal", pointer="/mix")
    scale = max(abs(weight) for weight in weights) or 1.0  # so that tiny or huge weights lose nothing
    total = sum((weight / scale * normalize(row).astype(np.float64) for row, weight in zip(rows, weights, strict=True)), np.zeros(1))
    if not np.isfinite(total).all() or np.linalg.norm(total) < 1e-6:
        raise InvalidParameter("the parts of the mix cancel out or have no direction; change the weights", pointer="/mix")
    return normalize(total)


def _weight(part: Mapping[str, Any]) -> float:
    weight = part.get("weight", 1.0)
    if isinstance(weight, bool) or not isinstance(weight, int | float):
        raise InvalidParameter(f"weight is {weight!r}; it must be a number", pointer="/mix")
    return float(weight)


def _path(modality: str, value: Input, model: Embedder) -> str | None:
    if model.bundle.modality(modality).kind == "text":
        return None
    return os.fspath(value) if isinstance(value, str | os.PathLike) else None


def _seconds(options: Mapping[str, object], name: str) -> float | None:
    value = options.get(name)
    return None if value is None else float(str(value))
