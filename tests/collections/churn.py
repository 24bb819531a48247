"""Random work on a store, written down step by step, so that whoever kills it knows what it had been promised.

    python -m tests.collections.churn DATA LOG SEED TIERS

The log gets two lines a step: what is about to be done, and, when the store has answered, what it answered. A step with the second
line was acknowledged; of one without it nothing is known. Lines go out in one `write` each, so the log outlives a `kill -9`.
"""

from __future__ import annotations

import json
import os
import random
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from bindery.collections import Collection, Item, Query, Store
from bindery.collections.tiers import Tiers
from tests.collections.items import DIMENSION, FIELDS, MODALITIES, item, vector
from tests.collections.plain import Found, PlainCollection

NAME = "c"
TIERS = {
    "usual": Tiers(),
    # So that a few hundred items are sealed and merged all the time, and dead rows stay in their segments for a while.
    "tiny": Tiers(exact_rows=30, always_exact=3, segment_rows=120, dead_share=0.6),
}
_IDS = 300
_PLACES = ("yard", "hall", "roof")
_KEPT_SNAPSHOTS = 2

Step = dict[str, Any]
"""`{"do": what, ...}`, of JSON values only, so that it can be replayed."""


def open_collection(store: Store) -> Collection:
    return store.create(NAME, space="s", dimension=DIMENSION, bundle="b", fields=FIELDS)


def random_step(chance: random.Random, snapshots: list[str]) -> Step:
    do = chance.choices(
        ["upsert", "patch", "delete", "delete where", "search", "snapshot", "drop snapshot", "restore"], [30, 4, 12, 2, 20, 2, 1, 2]
    )[0]
    if do == "snapshot" and len(snapshots) >= _KEPT_SNAPSHOTS:
        do = "drop snapshot"
    match do:
        case "upsert":
            rows = chance.choice([1, 3, 20, 60])
            return {"do": do, "items": [[_id(chance), chance.randrange(1_000_000)] for _ in range(rows)]}
        case "delete":
            return {"do": do, "ids": [_id(chance) for _ in range(chance.choice([1, 5, 20]))]}
        case "delete where":
            low = chance.randrange(950_000)
            return {"do": do, "filter": {"place": {"eq": chance.choice(_PLACES)}, "count": {"gte": low, "lt": low + 50_000}}}
        case "patch":
            return {"do": do, "id": _id(chance), "metadata": {"place": chance.choice(_PLACES), "note": chance.randrange(100)}}
        case "snapshot":
            return {"do": do}
        case "restore" | "drop snapshot" if snapshots:
            return {"do": do, "snapshot": snapshots[0]}
    return random_search(chance)


def random_search(chance: random.Random) -> Step:
    filters: list[dict[str, Any] | None] = [None, {"place": {"eq": chance.choice(_PLACES)}}, {"fresh": {"eq": True}}]
    return {
        "do": "search",
        "vector": chance.randrange(1_000_000),
        "top_k": chance.choice([1, 10, 50]),
        "modalities": chance.choice([None, *([modality] for modality in MODALITIES)]),
        "filter": chance.choice(filters),
        "exact": chance.random() < 0.5,
    }


def take(step: Step, store: Store, collection: Collection) -> Any:
    """Do it; the answer, as JSON values."""
    match step["do"]:
        case "upsert":
            return [result.status for result in collection.upsert(items_of(step))]
        case "delete":
            return collection.delete(ids=step["ids"])
        case "delete where":
            return collection.delete(filter=step["filter"])
        case "patch":
            known = step["id"] in collection.content_hashes([step["id"]])
            return known and bool(collection.patch(step["id"], step["metadata"]))
        case "snapshot":
            return store.snapshot(NAME).name
        case "drop snapshot":
            return store.delete_snapshot(step["snapshot"])
        case "restore":
            return len(store.restore(NAME, step["snapshot"]))
        case "search":
            return [[hit.id, hit.score] for hit in collection.search(query_of(step))]
    raise AssertionError(step)


def items_of(step: Step) -> list[Item]:
    return [item(number, id) for id, number in step["items"]]


def query_of(step: Step) -> Query:
    modalities = None if step["modalities"] is None else tuple(step["modalities"])
    return Query(vector(step["vector"]), step["top_k"], modalities, step["filter"], exact=step["exact"])


class Expected:
    """What the store must hold after the steps that were acknowledged."""

    def __init__(self) -> None:
        self.items = PlainCollection()
        self.snapshots: dict[str, Mapping[str, Item]] = {}
        self.written: list[int] = []  # numbers of items that were stored at some time

    def copy(self) -> Expected:
        other = Expected()
        other.items = PlainCollection(self.items.items)
        other.snapshots = dict(self.snapshots)
        other.written = list(self.written)
        return other

    def take(self, step: Step) -> Any:
        """The answer that the step must have had; None when it is not known before."""
        match step["do"]:
            case "upsert":
                self.written += [number for _, number in step["items"]]
                return self.items.upsert(items_of(step))
            case "delete":
                return self.items.delete(ids=step["ids"])
            case "delete where":
                return self.items.delete(filter=step["filter"])
            case "patch":
                known = step["id"] in self.items.items
                if known:
                    self.items.patch(step["id"], step["metadata"])
                return known
            case "drop snapshot":
                self.snapshots.pop(step["snapshot"], None)
            case "restore":
                self.items = PlainCollection(self.snapshots[step["snapshot"]])
                return len(self.items.items)
        return None

    def answered(self, step: Step, answer: Any) -> None:
        """Take an acknowledged step and hold its answer against the one it must have had."""
        wanted = self.take(step)
        if step["do"] == "search":
            found = [Found(id, score) for id, score in answer]
            self.items.check_search(query_of(step), found)
        elif step["do"] == "snapshot":
            self.snapshots[answer] = dict(self.items.items)
        else:
            assert answer == wanted, f"{step}: {answer}"


def main(data: str, log: str, seed: str, tiers: str) -> None:
    chance = random.Random(seed)
    out = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    with Store(Path(data), tiers=TIERS[tiers]) as store:
        collection = open_collection(store)
        snapshots = [found.name for found in store.snapshots()]
        while True:
            step = random_step(chance, snapshots)
            _write(out, step)
            answer = take(step, store, collection)
            _write(out, {"answer": answer})
            if step["do"] == "snapshot":
                snapshots.append(answer)
            elif step["do"] == "drop snapshot":
                snapshots.remove(step["snapshot"])


def read_log(log: Path) -> tuple[list[tuple[Step, Any]], Step | None]:
    """The steps that were acknowledged with their answers, and the one that may not have been done."""
    lines = log.read_text().split("\n")[:-1] if log.exists() else []  # what follows the last line end was cut short
    told = [json.loads(line) for line in lines]
    done = [(step, answer["answer"]) for step, answer in zip(told[::2], told[1::2], strict=False)]
    return done, told[-1] if len(told) % 2 else None


def _id(chance: random.Random) -> str:
    return f"id-{chance.randrange(_IDS)}"


def _write(out: int, line: Mapping[str, Any]) -> None:
    data = json.dumps(line).encode() + b"\n"
    assert os.write(out, data) == len(data)


if __name__ == "__main__":
    main(*sys.argv[1:])
