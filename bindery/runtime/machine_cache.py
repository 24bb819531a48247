"""A folder of what was made of graphs for one machine: an entry is whole or absent, and one made for another machine is never used.

An entry is a folder named by a digest of all that it depends on, with `entry.json` beside the made files: the same facts in
clear and each file's size. It comes into being by one rename, so a killed maker leaves none.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import shutil
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path, PurePosixPath

from bindery.bundle import Artefact, Bundle
from bindery.errors import BundleDamaged

FACTS = "entry.json"
log = logging.getLogger(__name__)

Facts = Mapping[str, str]


class MachineCache:
    """One sort of made thing under one cache folder. The folder belongs to whoever runs the server: what others can write is not read."""

    def __init__(self, root: Path, sort: str) -> None:
        self.root = root / sort

    def place(self, facts: Facts) -> Path:
        digest = hashlib.sha256(json.dumps(dict(facts), sort_keys=True).encode()).hexdigest()
        return self.root / digest[:32]

    def find(self, facts: Facts) -> Path | None:
        """The entry's folder, or None when there is none that is whole, ours and made for just these facts."""
        place = self.place(facts)
        if not place.is_dir():
            return None
        wrong = _wrong(place, facts)
        if wrong is None:
            return place
        log.warning("%s is not used and made again: %s", place, wrong)
        self.discard(facts)
        return None

    def make(self, facts: Facts, maker: Callable[[Path], None]) -> Path:
        """Run ``maker`` in an empty folder, which becomes the entry. Raises what it raises, and `OSError`; then there is no entry.

        Of two makers at the same time the first one's entry stays.
        """
        self.root.mkdir(parents=True, exist_ok=True, mode=0o700)
        building = Path(tempfile.mkdtemp(prefix=".building.", dir=self.root))  # readable by us only
        try:
            maker(building)
            sizes = {path.name: path.stat().st_size for path in sorted(building.iterdir())}
            (building / FACTS).write_text(json.dumps({"facts": dict(facts), "files": sizes}, indent=1) + "\n", encoding="utf-8")
            for path in building.iterdir():
                path.chmod(0o600)  # whatever the umask says
            try:
                os.rename(building, self.place(facts))
            except OSError:
                if self.find(facts) is None:
                    raise
        finally:
            shutil.rmtree(building, ignore_errors=True)
        return self.place(facts)

    def discard(self, facts: Facts) -> None:
        """Take the entry away: it turned out not to run."""
        shutil.rmtree(self.place(facts), ignore_errors=True)


def graph_identity(bundle: Bundle, artefact: Artefact) -> str:
    """A digest of the graph and of whatever lies in its folder: its weights may be there."""
    folder = PurePosixPath(artefact.path).parent
    listed = sorted((path, entry.sha256) for path, entry in bundle.manifest.files.items() if PurePosixPath(path).parent == folder)
    if artefact.path not in bundle.manifest.files:
        raise BundleDamaged(f"{artefact.path} is not listed in the manifest")
    return hashlib.sha256(json.dumps([artefact.path, listed]).encode()).hexdigest()


def _wrong(place: Path, facts: Facts) -> str | None:
    try:
        document = json.loads((place / FACTS).read_bytes())
        if document["facts"] != dict(facts):
            return "it was made for another graph or machine"
        for name, size in document["files"].items():
            status = (place / name).lstat()
            if status.st_size != size:
                return f"{name} has {status.st_size} bytes, not {size}"
            if not _only_ours(status):
                return f"{name} can be written by others"
        if not _only_ours(place.stat()):
            return "it can be written by others"
    except (OSError, ValueError, KeyError, AttributeError, TypeError) as error:
        return f"it cannot be read ({type(error).__name__}: {error})"
    return None


def _only_ours(status: os.stat_result) -> bool:
    user = getattr(os, "geteuid", None)  # not on Windows, where the rights of the folder decide
    return user is None or (status.st_uid == user() and not status.st_mode & 0o022)
