"""`bindery search`: a collection asked with words, a file or one of its items."""

from __future__ import annotations

import json
from collections.abc import Mapping
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated

import typer

from bindery.cli.console import note, print_json, print_table
from bindery.cli.options import Bundle, DataDir, Device, Precision, Threads, bundle_of, open_model, parse_json, parse_list, settings_of

if TYPE_CHECKING:
    from bindery.collections import Hit, SearchResult


class Format(StrEnum):
    TABLE = "table"
    JSON = "json"


def search(
    collection: Annotated[str, typer.Option("--collection", help="The collection to search.")],
    text: Annotated[str | None, typer.Argument(help="The query in words.")] = None,
    file: Annotated[str | None, typer.Option("--file", help="A file as the query; needs --modality.")] = None,
    item: Annotated[str | None, typer.Option("--item", metavar="ID", help="A stored item as the query.")] = None,
    mix: Annotated[
        str | None, typer.Option("--mix", metavar="JSON", help='E.g. [{"text": "rain", "weight": 0.7}, {"item": ID, "weight": -0.3}].')
    ] = None,
    modality: Annotated[str | None, typer.Option("--modality", help="What --file is.")] = None,
    among: Annotated[list[str] | None, typer.Option("--among", metavar="MODALITY", help="Return only these. Repeatable.")] = None,
    top_k: Annotated[int, typer.Option("--top-k", help="How many hits.")] = 10,
    offset: Annotated[int, typer.Option("--offset", help="Skip this many hits.")] = 0,
    filter: Annotated[str | None, typer.Option("--filter", metavar="JSON", help='E.g. {"modality": {"eq": "image"}}.')] = None,
    group_by: Annotated[
        str | None, typer.Option("--group-by", help="Only the best hit of each value: uri, modality or a declared field.")
    ] = None,
    min_score: Annotated[float | None, typer.Option("--min-score", help="Leave out hits below this cosine.")] = None,
    centred: Annotated[bool, typer.Option("--centred", help="Scores that compare between modalities, for mixed lists.")] = False,
    format: Annotated[Format, typer.Option("--format")] = Format.TABLE,
    data_dir: DataDir = None,
    bundle: Bundle = None,
    device: Device = None,
    precision: Precision = None,
    threads: Threads = None,
) -> None:
    """Search a collection; best hits first."""
    if sum(way is not None for way in (text, file, item, mix)) != 1:
        raise typer.BadParameter("give one of: words, --file, --item, --mix")
    if (file is None) != (modality is None):
        raise typer.BadParameter("--file and --modality go together; to return only some modalities there is --among")
    where, parts = parse_json(filter, "--filter"), parse_list(mix, "--mix")

    from bindery.collections import open_store
    from bindery.search import SearchableCollection

    settings = settings_of(bundle=bundle, data_dir=data_dir, device=device, precision=precision, threads=threads)
    with open_store(settings, make=False) as store:
        found = store.get(collection)
        named = settings if bundle else bundle_of(found.definition, settings)
        searchable = SearchableCollection(store, found, open_model(named) if item is None else None)
        result = searchable.search(
            text=text, file=file, item=item, mix=parts, modality=modality, modalities=among, top_k=top_k, offset=offset,
            filter=where, group_by=group_by, min_score=min_score, centred=centred,
        )  # fmt: skip
    if format is Format.JSON:
        print_json({"hits": [_hit(hit) for hit in result], "plan": result.plan})
    else:
        _print(result)


def _print(result: SearchResult) -> None:
    if not result.hits:
        note("no hits")
        return
    rows = [(f"{hit.score:.4f}", hit.modality, hit.id, _part(hit.start, hit.end), _short(hit.metadata)) for hit in result]
    print_table(("score", "modality", "id", "part", "metadata"), rows)


def _hit(hit: Hit) -> dict[str, object]:
    return {
        "id": hit.id,
        "score": hit.score,
        "modality": hit.modality,
        "uri": hit.uri,
        "start": hit.start,
        "end": hit.end,
        "metadata": dict(hit.metadata),
    }


def _part(start: float | None, end: float | None) -> str:
    if start is None and end is None:
        return ""
    return f"{start or 0:g}-{'' if end is None else f'{end:g}'} s"


def _short(metadata: Mapping[str, object]) -> str:
    text = json.dumps(dict(metadata), ensure_ascii=False) if metadata else ""
    return text if len(text) <= 60 else text[:59] + "…"
