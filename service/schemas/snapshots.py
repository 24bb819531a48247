"""Bodies of snapshots and of restoring them."""

from __future__ import annotations

from pydantic import BaseModel, Field

from service.schemas.embed import Strict


class RestoreBody(Strict):
    snapshot: str = Field(description="its name, as taking it answered")


class SnapshotAnswer(BaseModel):
    snapshot: str
    collection: str
    items: int
    bytes: int
    created_at: float = Field(description="seconds since 1970")


class SnapshotsAnswer(BaseModel):
    snapshots: list[SnapshotAnswer]
