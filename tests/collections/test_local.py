"""What only the local collection promises; `test_collection.py` has what every collection does."""

from __future__ import annotations

import pytest

from bindery.collections import Query
from bindery.collections.cursor import encode_cursor
from bindery.collections.local import LocalCollection
from bindery.errors import InvalidParameter
from tests.collections.items import item, vector


def test_the_plan_tells_how_the_search_ran(collection: LocalCollection) -> None:
    collection.upsert([item(n) for n in range(30)])
    plan = collection.search(Query(vector(1), modalities=("image", "smell"), filter={"count": {"lt": 15}})).plan
    assert plan["modalities"] == {"image": {"rows": 10, "allowed": 5, "index": "flat", "plan": "exact"}}
    assert plan["exact"] is True
    assert plan["filtered"] is True
    assert plan["ms"] >= 0


def test_pages_come_in_order_of_creation(collection: LocalCollection) -> None:
    collection.upsert([item(n) for n in range(25)])
    first = collection.page(12)
    collection.upsert([item(3), item(100)])  # one that was seen, and a new one
    collection.delete(ids=["item-5", "item-20"])
    seen = [each.id for page in (first, collection.page(100, first.cursor)) for each in page.items]
    assert seen == [f"item-{n}" for n in range(25) if n != 20] + ["item-100"]


@pytest.mark.parametrize("cursor", ["YWZ0ZXI6LTE", "YWZ0ZXI6MDE", encode_cursor("9" * 19), encode_cursor("9" * 5000)])
def test_a_cursor_of_no_key_is_refused(collection: LocalCollection, cursor: str) -> None:
    with pytest.raises(InvalidParameter, match="cursor"):
        collection.page(4, cursor)
