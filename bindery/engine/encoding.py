"""From tensors to a vector: one batching loop for each encoder on the one runtime, each begun again once when it dies, and watched."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping
from concurrent.futures import Executor
from functools import partial

from bindery.bundle import Bundle
from bindery.decoded import Tensors
from bindery.engine import supervision
from bindery.engine.admission import Costs
from bindery.engine.batching import Batcher, Inferred, unobserved
from bindery.engine.canary import Canary, still_input
from bindery.engine.events import BatchRun, Event, LoopRestarted, ThreadReplaced
from bindery.engine.lanes import Priority
from bindery.engine.runner import Runner
from bindery.engine.stepback import step_back_thread
from bindery.engine.supervision import hung, running_s, stuck, waiting_s
from bindery.engine.turns import Turns
from bindery.errors import EngineDown
from bindery.known_answer import known_input
from bindery.prepare.tokens import TextTokenizer
from bindery.runtime.encoder import Encoder
from bindery.spec import TextSpec

_HUNG_RETRY_MS = 5000
log = logging.getLogger(__name__)


class Encoding:
    """Lives on one event loop. ``on_dead`` is called when a loop has ended for good; ``reopen`` opens a modality's graph again."""

    def __init__(
        self,
        bundle: Bundle,
        costs: Costs,
        *,
        max_batch: int,
        canary_s: float,
        emit: Callable[[Event], None],
        on_dead: Callable[[], None],
        reopen: Callable[[str], Encoder],
    ) -> None:
        self.encoders: dict[str, Encoder] = {}
        self.batches: dict[str, int] = {}
        """The largest batch of an encoder that gains by its size on this machine, where that was measured."""
        self._bundle = bundle
        self._costs = costs
        self._max_batch = max_batch
        self._canary = Canary(self.infer, canary_s)
        self._emit = emit
        self._on_dead = on_dead
        self._reopen = reopen
        self._batchers: dict[str, Batcher] = {}
        self._loops: dict[str, asyncio.Task[None]] = {}
        self._restarted: set[str] = set()
        self._warm = False
        self._thread = Runner("runtime", step_back_thread)
        self._staging = Runner("stage", step_back_thread)
        self._hung: list[Runner] = []
        self._look: asyncio.TimerHandle | None = None
        self._renewal: asyncio.Task[None] | None = None

    @property
    def thread(self) -> Executor:
        """The thread that graphs run in. What opens them must run there too (see `stepback`)."""
        return self._thread

    async def start(self, tokenizers: Mapping[str, TextTokenizer]) -> None:
        """Begin the loops, warm every graph up and measure it. Raises what a graph raises."""
        turns = Turns()
        for modality, encoder in self.encoders.items():
            self._batchers[modality] = self._batcher(modality, encoder, turns)
            self._begin(modality)
        inputs = {modality: self._question(modality, tokenizers.get(modality)) for modality in self.encoders}
        known = {name: modality.canary for name, modality in self._bundle.manifest.modalities.items() if modality.canary is not None}
        for modality, infer_ms in (await self._canary.record(inputs, known)).items():
            tensor_bytes = sum(tensor.nbytes for tensor in inputs[modality].values())
            self._costs.measured(modality, infer_ms, tensor_bytes, decodes=modality not in tokenizers)
        self._warm = True
        self._look_after()

    async def stop(self) -> None:
        if self._look is not None:
            self._look.cancel()
        if self._renewal is not None:
            self._renewal.cancel()
        await self._canary.stop()
        for task in self._loops.values():
            task.cancel()
        await asyncio.gather(*self._loops.values(), return_exceptions=True)
        await asyncio.to_thread(self._staging.shutdown)
        await asyncio.to_thread(self._thread.shutdown)
        self._batchers.clear()
        self.encoders.clear()  # which frees the graphs' memory now, and not when the cycles around them are found

    async def infer(
        self, modality: str, tensors: Tensors, deadline: float | None, priority: Priority = "batch", begun: Callable[[], None] = unobserved
    ) -> Inferred:
        """As `Batcher.infer`."""
        return await self._batchers[modality].infer(tensors, deadline, priority, begun)

    def trouble(self, *, idle: bool) -> str | None:
        """What hangs, or gives other vectors than it did. ``idle``: there is time to look at a canary."""
        if idle and self._warm:
            self._canary.nudge()
        return stuck(self._batchers, self._costs) or self._canary.trouble()

    def check(self) -> None:
        """Raises `EngineDown` while a run hangs: all graphs wait for it, so nothing new would come to its turn."""
        trouble = stuck(self._batchers, self._costs)
        if trouble is not None:
            raise EngineDown(trouble, retry_after_ms=_HUNG_RETRY_MS)

    @property
    def running_s(self) -> float:
        return running_s(self._batchers)

    @property
    def waiting_s(self) -> float:
        return waiting_s(self._batchers)

    def _look_after(self) -> None:
        """Give up what hangs, for good or not: a run of a graph with its thread, and loops that take nothing."""
        self._look = asyncio.get_running_loop().call_later(supervision.LOOK_S, self._look_after)
        modality = hung(self._batchers, self._costs)
        if modality is not None:
            self._replace_thread(modality)
        elif self.waiting_s > supervision.GIVE_UP_TIMES * supervision.STUCK_S and (self._renewal is None or self._renewal.done()):
            self._renewal = asyncio.create_task(self._begin_again(), name="loops-begun-again")

    def _replace_thread(self, modality: str) -> None:
        """The items of the run fail. Its graph is opened anew, in the new thread and before anything else runs there."""
        log.error("a run of the graph of modality %s hangs; its thread is given up", modality)
        given_up, batcher = self._thread, self._batchers[modality]
        self._hung = [*(one for one in self._hung if one.is_alive), given_up]
        self._thread = Runner("runtime", step_back_thread)
        for one in self._batchers.values():
            one.executor = self._thread
        if self._staging.busy_s:  # it may be the copy to the device that hangs
            self._staging.give_up(EngineDown("a batch did not reach the device", retry_after_ms=_HUNG_RETRY_MS))
            self._staging = Runner("stage", step_back_thread)
            for one in self._batchers.values():
                one.staging = None if one.staging is None else self._staging
        self._emit(ThreadReplaced("runtime"))
        if len(self._hung) > supervision.MOST_HUNG:
            self._on_dead()
        else:
            opened = asyncio.wrap_future(self._thread.submit(self._open_again, modality, batcher))
            opened.add_done_callback(partial(self._opened_again, modality))
        given_up.give_up(EngineDown("a run of the graph did not come to an end", retry_after_ms=_HUNG_RETRY_MS))
        stop = getattr(batcher.encoder, "terminate", None)
        if stop is not None:
            stop()

    def _open_again(self, modality: str, batcher: Batcher) -> None:
        batcher.encoder = self._reopen(modality)

    def _opened_again(self, modality: str, opened: asyncio.Future[None]) -> None:
        if opened.cancelled():
            return
        if opened.exception() is not None:
            log.error("the graph of modality %s cannot be opened again", modality, exc_info=opened.exception())
            self._on_dead()
            return
        self.encoders[modality] = self._batchers[modality].encoder

    async def _begin_again(self) -> None:
        """All loops, with new turns: one of them may have been lost."""
        log.error("items are ready and no batching loop takes them; all loops are begun again")
        ended = list(self._loops.values())
        for task in ended:
            task.cancel()
        await asyncio.gather(*ended, return_exceptions=True)
        turns = Turns()
        for modality, batcher in self._batchers.items():
            batcher.turns = turns
            self._begin(modality)
            self._emit(LoopRestarted(modality))

    def _batcher(self, modality: str, encoder: Encoder, turns: Turns) -> Batcher:
        spec = self._bundle.modality(modality).spec

        max_batch = min(self._max_batch, self.batches.get(modality, self._max_batch), encoder.max_batch)

        def ran(items: int, infer_ms: float) -> None:
            if self._warm:  # the very first runs are no measure
                self._costs.ran(modality, items, infer_ms)
                self._emit(BatchRun(modality, items, infer_ms, max_batch))

        pad_id = spec.pad_id if isinstance(spec, TextSpec) else 0
        # On the processor that computes, prefetching gains nothing (bench/prefetch.py): collating takes the graph's own time.
        staging = None if encoder.device == "cpu" else self._staging
        return Batcher(encoder, pad_id=pad_id, max_batch=max_batch, turns=turns, executor=self._thread, on_batch=ran, staging=staging)

    def _question(self, modality: str, tokenizer: TextTokenizer | None) -> Tensors:
        entry = self._bundle.modality(modality)
        artefact = entry.artefacts[0]  # every precision takes the same inputs
        if entry.canary is not None:
            return known_input(artefact.inputs, tokenizer, entry.canary.text)
        return still_input(artefact) if tokenizer is None else known_input(artefact.inputs, tokenizer)

    def _begin(self, modality: str) -> None:
        task = asyncio.create_task(self._batchers[modality].run(), name=f"batch-{modality}")
        task.add_done_callback(lambda task: self._ended(modality, task))
        self._loops[modality] = task

    def _ended(self, modality: str, task: asyncio.Task[None]) -> None:
        if task.cancelled():
            return
        log.error("the batching loop of modality %s ended", modality, exc_info=task.exception())
        if modality in self._restarted:  # what kills it again is no accident
            self._on_dead()
            return
        self._restarted.add(modality)
        self._begin(modality)
        self._emit(LoopRestarted(modality))
