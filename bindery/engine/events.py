"""What the engine tells the world: plain events. The service turns them into metrics, jobs into progress; this knows neither."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

Stage = Literal["admit", "decode", "queue", "infer"]
"""Where an item is: waiting for its turn, with the tokenizer or the decoders, ready and waiting for the runtime, in a run of its graph.
One that waits for an equal item's vector is in the queue too."""


@dataclass(frozen=True, slots=True)
class Admitted:
    modality: str


@dataclass(frozen=True, slots=True)
class Refused:
    """An item that was not taken, with the code of the error that it was answered with."""

    modality: str
    code: str


@dataclass(frozen=True, slots=True)
class CacheLookup:
    """How an item got its vector: from the cache, from an equal item in work at the same time, or computed."""

    modality: str
    found: Literal["hit", "coalesced", "miss"]


@dataclass(frozen=True, slots=True)
class Finished:
    modality: str
    stages_ms: dict[str, float]  # decode, queue, infer; empty when it was known already
    usage: dict[str, float]  # what was decoded for it: bytes, pixels, audio_seconds, video_frames, tokens


@dataclass(frozen=True, slots=True)
class Failed:
    modality: str
    code: str
    stage: Stage  # the one it was in


@dataclass(frozen=True, slots=True)
class Dropped:
    """An item whose caller has gone, and the stage that it was in: the stages after it were not spent on it."""

    modality: str
    stage: Stage


@dataclass(frozen=True, slots=True)
class LoopRestarted:
    """A batching loop ended by a surprise and was begun again."""

    modality: str


@dataclass(frozen=True, slots=True)
class ThreadReplaced:
    """A thread hung in its work, and a new one took its place."""

    stage: Literal["tokenize", "runtime"]


@dataclass(frozen=True, slots=True)
class BatchRun:
    modality: str
    items: int
    infer_ms: float
    most: int  # items that it could have had


@dataclass(frozen=True, slots=True)
class WorkerReplaced:
    """A decoder process died or was killed, and a new one took its place."""

    reason: Literal["crashed", "timeout", "memory"]


Event = Admitted | Refused | CacheLookup | Finished | Failed | Dropped | LoopRestarted | ThreadReplaced | BatchRun | WorkerReplaced
Listener = Callable[[Event], None]
