"""Intake: what a source lists goes into the ledger, each file with its modality; what has vanished since is found."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from bindery.bundle import Bundle
from bindery.collections.model import FieldType
from bindery.errors import BinderyError, InvalidParameter
from bindery.jobs.ledger import Job, Ledger
from bindery.jobs.listing import Listed, Listing, Unlisted
from bindery.jobs.spec import modality_by_suffix

_AT_ONCE = 500
_BOOLEANS = {"true": True, "1": True, "yes": True, "false": False, "0": False, "no": False}


class Intake:
    """Of one run of a job. ``fields``: what the collection declares. ``tell`` hears of every entry that failed, ``tell_left_out``
    of every file of no modality, or of several."""

    def __init__(
        self, ledger: Ledger, job: Job, bundle: Bundle, fields: Mapping[str, FieldType],
        tell: Callable[[str, BinderyError], None], tell_left_out: Callable[[str], None],
    ) -> None:  # fmt: skip
        self._ledger = ledger
        self._job = job
        self._bundle = bundle
        self._fields = fields
        self._tell = tell
        self._tell_left_out = tell_left_out
        self._stopping = False
        self._nameless = 0

    def stop(self) -> None:
        """`enter`, in its thread, returns at the next file."""
        self._stopping = True

    def enter(self, listing: Listing) -> None:
        """Enter all that the source has into the ledger; unchanged files that an earlier run has done stay done."""
        job, ledger = self._job, self._ledger
        only = ledger.last_failed(job.spec) if job.spec.retry_failed else None
        run = ledger.begin(job.id)
        pending: list[tuple[Listed, str]] = []
        left_out = 0
        for entry in listing:
            if self._stopping:
                return
            name = _utf8(entry.uri if isinstance(entry, Unlisted) else entry.name)
            if only is not None and name not in only:
                continue
            try:
                found = self._taken(entry, name)
            except BinderyError as error:
                self._nameless += isinstance(entry, Unlisted) and entry.nameless
                ledger.fail_listed(job.id, run, name, error.code, error.detail)
                self._tell(name, error)
                continue
            if found is None:
                left_out += 1
                self._tell_left_out(name)
                continue
            pending.append(found)
            if len(pending) == _AT_ONCE:
                ledger.list_units(job.id, run, pending)
                pending = []
        ledger.list_units(job.id, run, pending)
        ledger.end_listing(job.id, run, left_out)

    def vanished(self) -> list[str]:
        """What is to be pruned. Raises `InvalidParameter` when that looks like a source that is not whole."""
        spec = self._job.spec
        if not spec.prune or spec.retry_failed:
            return []
        names, stored = self._ledger.vanished(self._job)
        if names and not spec.force and (self._nameless or 2 * len(names) > stored):
            why = f", and {self._nameless} entries of it cannot be read" if self._nameless else ""
            raise InvalidParameter(
                f"prune would remove {len(names)} of {stored} files that came from {spec.source}{why}; look whether all of it is there, "
                "and force it if that is what you want",
                pointer="/prune",
            )
        return names

    def _taken(self, entry: Listed | Unlisted, name: str) -> tuple[Listed, str] | None:
        """A file with its modality, None for one that is left out. Raises why it fails before it is opened."""
        if isinstance(entry, Unlisted):
            raise entry.error
        if name != entry.name:
            raise InvalidParameter(f"{name} is not UTF-8, and ids are; rename the file")
        modality = entry.modality or modality_by_suffix(self._bundle, entry.name)
        if modality is None:
            return None
        self._bundle.modality(modality)
        return replace(entry, metadata=declared(entry.metadata, self._fields)), modality


def declared(metadata: Mapping[str, Any], fields: Mapping[str, FieldType]) -> Mapping[str, Any]:
    """Metadata with text for numbers and booleans, as a CSV has it, in the types that the collection declares.

    What is no such value stays text, and the collection says what is wrong with it.
    """
    texts = {name: value for name, value in metadata.items() if isinstance(value, str) and name in fields}
    return {**metadata, **{name: _of_type(value, fields[name]) for name, value in texts.items()}} if texts else metadata


def _of_type(text: str, wanted: FieldType) -> Any:
    try:
        if wanted == "integer":
            return int(text)
        if wanted == "number":
            return float(text)
    except ValueError:
        return text
    return _BOOLEANS.get(text.lower(), text) if wanted == "boolean" else text


def _utf8(name: str) -> str:
    """The name with escapes for bytes that were no UTF-8: those came as lone surrogates, which no database takes."""
    return name.encode("utf-8", "backslashreplace").decode()
