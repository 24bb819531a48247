"""Who is let in: the queue is bounded by the time and the bytes that its items will take, not only by their number.

Costs are measured, not assumed: each graph's at the start, and both graphs' and decoders' again with every run.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, replace

from bindery.engine.lanes import Priority
from bindery.errors import QueueFull
from bindery.limits import Limits

BATCH_SHARE = 0.75
"""Of each bound, what batch work may fill: it is refused first, and leaves room for those who wait for their answer."""

SURE = 0.6
"""Of the time until a deadline, what may be spent waiting: estimates err, and under a flood the queue is always as long as it may be."""

CROWD, CROWD_S = 20, 1.0
"""So many refusals in so many seconds are a crowd: to ask each request what it wants, only to refuse it, takes time from those let in."""

_BUSY_MS = 50.0
"""Work that must be waiting for a stretch of time to tell how fast work is done."""
_WINDOW_S = 0.5
_MOST_STRETCH = 20.0
_DECODE_GUESS_MS = 20.0  # until the first file of a modality was decoded
_WEIGHT = 0.1  # of the newest measurement
_LEAST_RETRY_MS = 100


@dataclass(frozen=True, slots=True)
class Cost:
    decode_ms: float = 0.0  # of one decoder
    infer_ms: float = 0.0  # of the runtime
    bytes: int = 0  # of the file, when it is in memory, and of its tensors

    def without_work(self) -> Cost:
        return replace(self, decode_ms=0.0, infer_ms=0.0)


class Costs:
    """What an item of each modality costs, by a moving average."""

    def __init__(self) -> None:
        self._decode_ms: dict[str, float] = {}
        self._infer_ms: dict[str, float] = {}
        self._tensor_bytes: dict[str, int] = {}

    def measured(self, modality: str, infer_ms: float, tensor_bytes: int, *, decodes: bool) -> None:
        """What the start measured. ``decodes``: whether its items go through the decoders."""
        self._infer_ms[modality] = infer_ms
        self._tensor_bytes[modality] = tensor_bytes
        self._decode_ms[modality] = _DECODE_GUESS_MS if decodes else 0.0

    def decoded(self, modality: str, milliseconds: float) -> None:
        self._decode_ms[modality] = _moved(self._decode_ms.get(modality), milliseconds)

    def ran(self, modality: str, items: int, milliseconds: float) -> None:
        self._infer_ms[modality] = _moved(self._infer_ms.get(modality), milliseconds / items)

    def run_ms(self, modality: str, items: int) -> float:
        return self._infer_ms.get(modality, 0.0) * items

    def of(self, modality: str, held_bytes: int) -> Cost:
        tensors = self._tensor_bytes.get(modality, 0)
        return Cost(self._decode_ms.get(modality, 0.0), self._infer_ms.get(modality, 0.0), held_bytes + tensors)


class Seat:
    """One item that was let in, and what it still costs."""

    def __init__(self, admission: Admission, cost: Cost, priority: Priority) -> None:
        self._admission = admission
        self._cost = cost
        self._priority = priority
        self._left = False
        self._whole = cost
        admission._add(cost, priority, +1)

    def decoded(self) -> None:
        """The decoders are done with it."""
        if not self._left:
            self._admission._add(Cost(decode_ms=self._cost.decode_ms), self._priority, 0, sign=-1)
            self._cost = replace(self._cost, decode_ms=0.0)

    def answered(self) -> None:
        """It has its vector."""
        self._admission._did(self._whole)

    def leave(self) -> None:
        """It costs nothing more. Calling it again does nothing."""
        if not self._left:
            self._left = True
            self._admission._add(self._cost, self._priority, -1, sign=-1)


class Admission:
    """``decoders``: how many files are decoded side by side. Lives on one event loop."""

    def __init__(self, limits: Limits, decoders: int) -> None:
        self._limits = limits
        self._decoders = decoders
        self._decode_ms: dict[Priority, float] = {"interactive": 0.0, "batch": 0.0}
        self._infer_ms: dict[Priority, float] = {"interactive": 0.0, "batch": 0.0}
        self._refusals: deque[float] = deque(maxlen=CROWD)  # when the last ones were, on `time.monotonic`'s clock
        self._stretch = 1.0
        self._done = Cost()  # since the window began
        self._window = time.monotonic()
        self.seats = 0
        self.bytes = 0

    def wait_ms(self, priority: Priority) -> float:
        """How long an item that came now would wait: the work in front of it, times what such work has lately taken beside its costs.

        Graphs, decoders and HTTP share the same cores: under a flood, work takes several times what it takes alone.
        """
        return self._stretch * self.work_ms(priority)

    def work_ms(self, priority: Priority) -> float:
        """The costs of what waits or is in work, before an item that came now: interactive ones do not wait for batch work."""
        decode, infer = self._decode_ms["interactive"], self._infer_ms["interactive"]
        if priority == "batch":
            decode, infer = decode + self._decode_ms["batch"], infer + self._infer_ms["batch"]
        return max(decode / self._decoders, infer, 0.0)

    def take(self, wanted: Sequence[Cost], priority: Priority, deadline: float | None) -> list[Seat]:
        """Seats for all, or `QueueFull` for all. An idle engine takes whatever comes: waiting would not make it fit."""
        if self.work_ms("batch") < _BUSY_MS:  # a queue begins here: the time before it tells nothing
            self._done, self._window = Cost(), time.monotonic()
        refusal = self._refusal(wanted, priority, deadline) if self.seats else None
        if refusal is not None:
            self._refusals.append(time.monotonic())
            try:
                raise refusal
            finally:
                del refusal  # or its traceback's frame would hold it, and nobody but the garbage collector would find them
        return [Seat(self, cost, priority) for cost in wanted]

    def crowd(self, priority: Priority, deadline: float | None) -> QueueFull | None:
        """The refusal of any item, whatever it is, when there is a crowd and no room: it need not be looked at.

        Given, not raised: of these there are hundreds a second, and a traceback costs more than the rest.
        """
        crowded = len(self._refusals) == CROWD and time.monotonic() - self._refusals[0] < CROWD_S
        return self._refusal([Cost()], priority, deadline) if crowded and self.seats else None

    def _refusal(self, wanted: Sequence[Cost], priority: Priority, deadline: float | None) -> QueueFull | None:
        share = BATCH_SHARE if priority == "batch" else 1.0
        wait = self.wait_ms(priority)
        everything = self.wait_ms("batch")
        items = share * self._limits.queue_items
        if self.seats + len(wanted) > items:
            over = (self.seats + len(wanted) - items) / self.seats
            return _full(f"{self.seats} items are waiting or in work, and there is no room for {len(wanted)} more", everything * over)
        held, size = share * self._limits.queue_bytes, sum(cost.bytes for cost in wanted)
        if self.bytes + size > held:
            over = (self.bytes + size - held) / max(self.bytes, 1)
            return _full(f"items of {self.bytes} bytes are waiting or in work, and there is no room for {size} more", everything * over)
        longest = share * self._limits.queue_ms
        if wait > longest:
            return _full(f"the work that is waiting takes {wait:.0f} ms; at most {longest:.0f} ms are queued", wait - longest)
        if deadline is not None and 0 < (left := (deadline - time.monotonic()) * 1000) * SURE < wait:
            return _full(
                f"the work that is waiting takes {wait:.0f} ms, this request's deadline is in {left:.0f} ms, {SURE:.0%} of it for waiting",
                wait - SURE * left,
            )
        return None

    def _did(self, cost: Cost) -> None:
        """Compare the time that went by with the costs of what was done in it, as long as there is always more to do."""
        now = time.monotonic()
        done = self._done
        self._done = Cost(done.decode_ms + cost.decode_ms, done.infer_ms + cost.infer_ms)
        if self.seats < 2 or self.work_ms("batch") < _BUSY_MS:  # nobody waits behind it: no flood, and what one has taught is forgotten
            self._stretch = max(_moved(self._stretch, 1.0), 1.0)
            self._done, self._window = Cost(), now
        elif (passed_s := now - self._window) >= _WINDOW_S:
            worth_ms = max(self._done.decode_ms / self._decoders, self._done.infer_ms, 1.0)
            self._stretch = min(max((self._stretch + 1000 * passed_s / worth_ms) / 2, 1.0), _MOST_STRETCH)
            self._done, self._window = Cost(), now

    def _add(self, cost: Cost, priority: Priority, seats: int, *, sign: int = 1) -> None:
        self._decode_ms[priority] += sign * cost.decode_ms
        self._infer_ms[priority] += sign * cost.infer_ms
        self.bytes += sign * cost.bytes
        self.seats += seats
        if self.seats == 0:  # sums of fractions do not come back to zero by themselves
            self._decode_ms = dict.fromkeys(self._decode_ms, 0.0)
            self._infer_ms = dict.fromkeys(self._infer_ms, 0.0)


def _full(detail: str, retry_after_ms: float) -> QueueFull:
    return QueueFull(detail, retry_after_ms=max(_LEAST_RETRY_MS, int(retry_after_ms)))


def _moved(average: float | None, newest: float) -> float:
    return newest if average is None else average + _WEIGHT * (newest - average)
