"""Clips in a collection: a medium that was cut into windows is stored as one item for each, `ID#start-end`.

The id tells a clip's medium and its time, so storing the same windows again replaces the same items, and a medium's clips
can be found, and removed, by the medium's id.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

_CLIP = re.compile(r"(.+)#[0-9]+(?:\.[0-9]{1,3})?-[0-9]+(?:\.[0-9]{1,3})?", re.DOTALL)


def clip_id(id: str, start: float, end: float) -> str:
    """The id of a medium's clip from ``start`` to ``end`` seconds, to the millisecond: `talk.mp4#8-18`, `talk.mp4#24-30.5`."""
    return f"{id}#{_seconds(start)}-{_seconds(end)}"


def is_clip_of(id: str, medium: str) -> bool:
    found = _CLIP.fullmatch(id)
    return found is not None and found[1] == medium


def media_among(media: Sequence[str], ids: Iterable[str]) -> list[str]:
    """Those media of which an id is the own one or a clip's."""
    found: set[str] = set()
    for id in ids if media else ():
        clip = _CLIP.fullmatch(id)
        found.update((id,) if clip is None else (id, clip[1]))
    return [medium for medium in media if medium in found]


def clip_range(medium: str) -> tuple[str, str]:
    """Every clip's id of a medium lies between these two, the second excluded; so may ids that are none."""
    return f"{medium}#", f"{medium}$"  # $ follows # in every order of characters


def _seconds(value: float) -> str:
    return f"{value:.3f}".rstrip("0").rstrip(".")
