"""From an item to its tensors: texts by the tokenizer in a thread, files by the decoders, whose turns are given by priority."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from concurrent.futures import Future
from typing import TypeVar

from bindery.bundle import Bundle
from bindery.decoded import Cuts, Prepared
from bindery.engine.admission import Costs
from bindery.engine.cache import Value
from bindery.engine.lanes import Priority, Turnstile
from bindery.engine.pool import DecodePool
from bindery.engine.tokenizing import Tokenizing
from bindery.engine.worker import Stretch, Task
from bindery.errors import TooLong
from bindery.limits import Limits
from bindery.media.source import Source
from bindery.prepare.tokens import TextTokenizer
from bindery.spec import Options, TextSpec

T = TypeVar("T")


class Preparation:
    """Owns the tokenizers; the decoders are the engine's. ``on_hung`` is called when the tokenizer's thread had to be replaced."""

    def __init__(self, bundle: Bundle, limits: Limits, pool: DecodePool, costs: Costs, on_hung: Callable[[], None]) -> None:
        self.tokenizers: dict[str, TextTokenizer] = {}
        self._bundle = bundle
        self._limits = limits
        self._pool = pool
        self._costs = costs
        self._tokenizing = Tokenizing(on_hung)
        # One more than there are decoders, so that the next file is at hand when one of them is done.
        self._turnstile = Turnstile(pool.workers + 1)

    @property
    def width(self) -> int:
        """How many files are with the decoders at most."""
        return self._turnstile.width

    @property
    def tokenizing_s(self) -> float:
        """How long the text that has waited longest has been with the tokenizer; 0 when none is."""
        return self._tokenizing.age_s

    def open(self) -> None:
        """Load the tokenizers. Raises `BundleDamaged`."""
        for name, modality in self._bundle.manifest.modalities.items():
            if isinstance(modality.spec, TextSpec):
                self.tokenizers[name] = TextTokenizer(self._bundle.path(modality.spec.tokenizer), modality.spec)

    def close(self) -> None:
        self._tokenizing.close()

    async def prepare(self, modality: str, source: Value, options: Options, deadline: float | None, priority: Priority) -> Prepared:
        """Raises the item's own error. Cancelled before its turn, it costs nothing."""
        if isinstance(source, Source):
            return await self._decode(modality, source, options, deadline, priority)
        tokenizer = self.tokenizers[modality]
        if not isinstance(source, str):
            return tokenizer.encode_ids(source)
        if len(source) > self._limits.text_chars:
            raise TooLong(f"the text has {len(source)} characters; at most {self._limits.text_chars} are taken (limit text_chars)")
        return await self._tokenizing.encode(tokenizer, source)

    async def _decode(self, modality: str, source: Source, options: Options, deadline: float | None, priority: Priority) -> Prepared:
        spec = self._bundle.modality(modality).spec
        begun, prepared = await self._in_turn(lambda: self._pool.submit(Task(source, spec, options), deadline), priority)
        self._costs.decoded(modality, (time.monotonic() - begun) * 1000)
        return prepared

    async def find_cuts(self, stretch: Stretch, deadline: float | None, priority: Priority) -> Cuts:
        """Raises the file's error. A decoder looks at it for as long as at a large video: so it takes its turn among the files."""
        return (await self._in_turn(lambda: self._pool.find_cuts(stretch, deadline), priority))[1]

    async def _in_turn(self, submit: Callable[[], Future[T]], priority: Priority) -> tuple[float, T]:
        """When its turn began (`time.monotonic`), and what came of it."""
        await self._turnstile.enter(priority)
        begun = time.monotonic()
        loop = asyncio.get_running_loop()
        try:
            future = submit()
        except BaseException:
            self._turnstile.leave()
            raise
        # Not when the caller has gone, but when the decoder is free again.
        future.add_done_callback(lambda _: loop.call_soon_threadsafe(self._turnstile.leave))
        return begun, await asyncio.wrap_future(future)
