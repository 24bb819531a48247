"""`--policy MODALITY.FIELD=VALUE`: change one field of one spec, checked like any spec."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace

from pydantic import ValidationError

from export.errors import ExportUsageError
from export.source import TowerSource

FIXED = ("kind", "tokenizer")
"""Not choices: what the bundle itself decides."""


def apply_policies(sources: Sequence[TowerSource], policies: Sequence[str]) -> list[TowerSource]:
    """Raises `ExportUsageError` naming the modality, the field and what is allowed."""
    changed = {source.modality: source for source in sources}
    for policy in policies:
        modality, field, value = _parse(policy)
        if modality not in changed:
            raise ExportUsageError(f"--policy {policy}: no modality {modality!r}; this bundle has {', '.join(changed)}")
        changed[modality] = _changed(changed[modality], field, value, policy)
    return list(changed.values())


def _parse(policy: str) -> tuple[str, str, object]:
    target, equals, text = policy.partition("=")
    modality, dot, field = target.rpartition(".")
    if not (equals and dot and modality and field):
        raise ExportUsageError(f"--policy {policy!r} is not MODALITY.FIELD=VALUE, as in audio.long_audio=thirds_middle")
    try:
        return modality, field, json.loads(text)
    except ValueError:
        return modality, field, text  # a bare word


def _changed(source: TowerSource, field: str, value: object, policy: str) -> TowerSource:
    spec = source.spec
    allowed = [name for name in type(spec).model_fields if name not in FIXED]
    if field not in allowed:
        raise ExportUsageError(f"--policy {policy}: {spec.kind} has no field {field!r}; it has {', '.join(allowed)}")
    try:
        return replace(source, spec=type(spec).model_validate({**spec.model_dump(), field: value}))
    except ValidationError as error:
        raise ExportUsageError(f"--policy {policy}: {error.errors()[0]['msg']}") from error
