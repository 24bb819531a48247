"""Texts to token ids in a thread of their own: a hand-over takes what has come since the last one.

It costs several times what tokenizing a caption does. A thread on which a text hangs is given up: that text fails, those before it
have their ids, and those behind it go to a new thread.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

from bindery.decoded import Prepared
from bindery.engine import supervision
from bindery.engine.heartbeat import Heartbeat
from bindery.engine.runner import Runner, told
from bindery.errors import EngineDown, InternalError
from bindery.prepare.tokens import TextTokenizer

_TOGETHER_CHARS = 32_768
"""Of the texts of one hand-over; a longer one goes alone. Tens of milliseconds, and none of them waits for longer than that."""


@dataclass(slots=True)
class _Text:
    tokenizer: TextTokenizer
    text: str
    future: asyncio.Future[Prepared]
    outcome: Prepared | BaseException | None = None  # written by the thread
    is_second_try: bool = False


class Tokenizing:
    """Lives on one event loop. ``on_hung`` is called when the thread had to be replaced."""

    def __init__(self, on_hung: Callable[[], None]) -> None:
        self._on_hung = on_hung
        self._thread = Runner("tokenize")
        self._hung: list[Runner] = []
        self._look: asyncio.TimerHandle | None = None
        self._heartbeat = Heartbeat()
        self._came: deque[_Text] = deque()
        self._under_way = False  # a hand-over
        self._closed = False

    @property
    def age_s(self) -> float:
        """How long the text that has waited longest has been here; 0 when none is."""
        return self._heartbeat.age_s

    def close(self) -> None:
        """Texts that the thread does not have yet are told that the engine stopped."""
        if self._look is not None:
            self._look.cancel()
        self._closed = True
        self._thread.shutdown(wait=True)
        self._hand_over()

    async def encode(self, tokenizer: TextTokenizer, text: str) -> Prepared:
        """As `TextTokenizer.encode`. Raises `EngineDown` when the thread hung twice on others, `InternalError` when on this."""
        loop = asyncio.get_running_loop()
        if self._look is None:  # one timer for all, and only while there is something to look at
            self._look = loop.call_later(supervision.LOOK_S, self._look_after)
        one = _Text(tokenizer, text, loop.create_future())
        self._came.append(one)
        if not self._under_way:
            self._under_way = True
            loop.call_soon(self._hand_over)  # with the others of this round
        with self._heartbeat.working():
            return await one.future

    def _hand_over(self) -> None:
        if self._closed:
            while self._came:
                one = self._came.popleft()
                if not one.future.done():
                    one.future.set_exception(EngineDown("the inference engine stopped", retry_after_ms=1000))
            return
        texts = self._together()
        self._under_way = bool(texts)
        if texts:
            done = asyncio.get_running_loop().run_in_executor(self._thread, _encode_all, texts)
            done.add_done_callback(lambda done: self._came_back(texts, done))

    def _together(self) -> list[_Text]:
        """What comes next, in its order: one text, and more as long as they are short."""
        texts: list[_Text] = []
        chars = 0
        while self._came and (not texts or chars + len(self._came[0].text) <= _TOGETHER_CHARS):
            one = self._came.popleft()
            if not one.future.done():  # else its caller has gone
                texts.append(one)
                chars += len(one.text)
        return texts

    def _came_back(self, texts: list[_Text], done: asyncio.Future[None]) -> None:
        error = None if done.cancelled() else done.exception()
        again: list[_Text] = []
        for one in texts:
            outcome = one.outcome
            if outcome is None:  # the first of these is the one that the thread hung on, whether its caller is still there or not
                outcome, error = error, None
            if one.future.done():
                continue
            if isinstance(outcome, Prepared):
                one.future.set_result(outcome)
            elif outcome is not None:
                one.future.set_exception(outcome)
            elif one.is_second_try:
                one.future.set_exception(EngineDown("the tokenizer hung twice before this text came to its turn", retry_after_ms=1000))
            else:
                one.is_second_try = True
                again.append(one)
        self._came.extendleft(reversed(again))
        self._hand_over()

    def _look_after(self) -> None:
        """Give up the thread when what was handed over holds it for too long."""
        working = self._heartbeat.age_s > 0
        self._look = asyncio.get_running_loop().call_later(supervision.LOOK_S, self._look_after) if working else None
        if self._thread.busy_s > supervision.STUCK_S and len(self._hung) < supervision.MOST_HUNG:
            hung, self._thread = self._thread, Runner("tokenize")
            self._hung = [one for one in self._hung if one.is_alive] + [hung]
            hung.give_up(InternalError("the tokenizer did not come to an end on this text"))
            self._on_hung()


def _encode_all(texts: list[_Text]) -> None:
    for one in texts:
        try:
            one.outcome = one.tokenizer.encode(one.text)
        except BaseException as error:  # noqa: BLE001 - whatever it is (Rust's panics are no exceptions), it belongs to this text
            one.outcome = told(error)
