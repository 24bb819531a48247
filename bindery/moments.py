"""Media in a collection as their clips: one item for each, so that a search finds the moment and not only the file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from bindery.clips import Clip
from bindery.collections import Collection, Item, ItemResult, clip_id
from bindery.errors import BinderyError


@dataclass(frozen=True, slots=True, eq=False)
class Medium:
    """A video or a sound that was cut into clips, and what is known about it; every clip's item says the same."""

    id: str
    modality: str
    clips: Sequence[Clip]
    uri: str | None = None  # the medium's id when there is none, so that hits can be grouped by it
    metadata: Mapping[str, Any] = field(default_factory=dict)
    content_hash: str | None = None


def store_media(collection: Collection, media: Sequence[Medium]) -> list[ItemResult]:
    """Store media in one commit, each in place of all that was stored under its id: one result for each, in order.

    A result tells of each clip. A clip without a vector is told and not stored; then the content hash is left out, so that
    who compares hashes tries the medium again.
    """
    last = {medium.id: index for index, medium in enumerate(media)}
    kept = [medium for index, medium in enumerate(media) if last[medium.id] == index]
    items = [item for medium in kept for item in items_of(medium)]
    stored = iter(collection.upsert(items, media=[medium.id for medium in kept]))
    results: list[ItemResult] = []
    for index, medium in enumerate(media):
        if last[medium.id] != index:
            results.append(ItemResult(medium.id, "superseded"))
            continue
        clips = tuple(
            ItemResult(_id(medium, clip), "failed", clip.vector) if isinstance(clip.vector, BinderyError) else next(stored)
            for clip in medium.clips
        )
        results.append(_summed(medium.id, clips))
    # Where the last of several with one id could not be stored, it takes nobody's place.
    failed = {medium.id for medium, index in zip(media, range(len(media)), strict=True) if results[index].status == "failed"}
    again = [index for index, medium in enumerate(media) if last[medium.id] != index and medium.id in failed]
    for index, result in zip(again, store_media(collection, [media[index] for index in again]) if again else (), strict=True):
        results[index] = result
    return results


def items_of(medium: Medium) -> list[Item]:
    """An item for each clip that has a vector."""
    whole = not any(isinstance(clip.vector, BinderyError) for clip in medium.clips)
    return [
        Item(
            id=_id(medium, clip),
            modality=medium.modality,
            vector=clip.vector,
            uri=medium.uri or medium.id,
            start=clip.window.start,
            end=clip.window.end,
            metadata=medium.metadata,
            content_hash=medium.content_hash if whole else None,
        )
        for clip in medium.clips
        if not isinstance(clip.vector, BinderyError)
    ]


def _summed(id: str, clips: tuple[ItemResult, ...]) -> ItemResult:
    stored = [clip for clip in clips if clip.error is None]
    if not stored:
        return ItemResult(id, "failed", clips[0].error, clips)
    return ItemResult(id, "updated" if any(clip.status == "updated" for clip in stored) else "created", None, clips)


def _id(medium: Medium, clip: Clip) -> str:
    return medium.id if clip.window.is_whole else clip_id(medium.id, clip.window.start, clip.window.end)
