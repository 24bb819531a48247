"""The hostile set: files that strangers send to hurt, and odd ones that must simply work. Made in seconds, none of them kept.

python -m tests.hostile.make DIRECTORY
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from tests.hostile import containers, pictures, rasters, sounds, strangers, videos

Maker = Callable[[], bytes]


@dataclass(frozen=True)
class Hostile:
    """One file: whom it is sent to, and the codes that may answer it. ``ok`` among them: a vector is right."""

    name: str
    modality: str
    codes: frozenset[str]
    make: Maker


_ROOMS = (pictures, rasters, sounds, videos, containers, strangers)


def hostile_set() -> Iterator[Hostile]:
    for room in _ROOMS:
        for modality, name, codes, make in room.FILES:
            yield Hostile(name, modality, frozenset(codes.split()), make)


def write(directory: Path) -> int:
    directory.mkdir(parents=True, exist_ok=True)
    count = 0
    for file in hostile_set():
        (directory / f"{file.modality}-{file.name}").write_bytes(file.make())
        count += 1
    return count


if __name__ == "__main__":
    sys.stdout.write(f"{write(Path(sys.argv[1]))} files\n")
