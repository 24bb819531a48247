"""What the engine gives for one item."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from bindery.vectors import Vectors

NO_TIME = {"decode": 0.0, "queue": 0.0, "infer": 0.0}


@dataclass(frozen=True, slots=True)
class Embedded:
    vector: Vectors  # (d,) float32, unit length; read-only, since several callers may hold it
    usage: dict[str, float]
    truncated: bool
    timings_ms: dict[str, float]  # decode, queue, infer; zeros when it was not computed for this caller
    batch: int = field(default=0, kw_only=True)  # items of the run that it was computed in, if it was for this caller

    def kept(self) -> Embedded:
        """A copy to keep: not a row of its batch (which would hold the whole batch in memory), and without a time of its own."""
        vector = self.vector.copy()
        vector.setflags(write=False)
        return replace(self, vector=vector, timings_ms=NO_TIME, batch=0)
