"""What hangs is given up: its items fail, those behind them are answered, and the stage goes on with a new thread."""

from __future__ import annotations

import asyncio
import threading
import time
from pathlib import Path
from typing import cast

import pytest

from bindery.bundle import Bundle, open_bundle
from bindery.decoded import Prepared
from bindery.engine import supervision, tokenizing
from bindery.engine.canary import still_input
from bindery.engine.embedded import Embedded
from bindery.engine.events import LoopRestarted, ThreadReplaced
from bindery.engine.runner import Displaced, Runner
from bindery.errors import EngineDown, InternalError
from bindery.prepare.tokens import TextTokenizer
from bindery.runtime.collate import collate
from bindery.runtime.open import open_encoder
from tests.engine.peers import Peers
from tests.engine.test_engine_health import started
from tests.toybundle import build_toy_bundle


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return open_bundle(build_toy_bundle(tmp_path_factory.mktemp("bundles") / "toy"))


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(supervision, "STUCK_S", 0.2)
    monkeypatch.setattr(supervision, "GIVE_UP_TIMES", 2.0)
    monkeypatch.setattr(supervision, "LOOK_S", 0.02)


async def test_a_run_that_hangs_is_given_up_and_its_graph_opened_again(bundle: Bundle) -> None:
    peers = Peers("text")
    async with started(bundle, peers, canary_s=3600) as (engine, events):
        hanging = peers["text"]
        hanging.open.clear()
        hanging.entered.clear()  # the warm-up was there already
        item = asyncio.create_task(engine.embed("text", "a"))
        await asyncio.to_thread(hanging.entered.wait, 5)
        behind = asyncio.create_task(engine.embed("text", "b"))
        with pytest.raises(EngineDown, match="did not come to an end"):
            await item
        assert (await behind).vector.shape == (8,)
        assert peers["text"] is engine.encoders["text"] is not hanging
        assert engine.state == "ready"
        assert engine.trouble() is None
        assert [event for event in events if isinstance(event, ThreadReplaced)] == [ThreadReplaced("runtime")]
        hanging.open.set()  # what comes back too late disturbs nobody
        assert (await engine.embed("text", "c")).vector.shape == (8,)


async def test_an_engine_whose_threads_all_hang_is_dead(bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(supervision, "MOST_HUNG", 0)
    peers = Peers("text")
    async with started(bundle, peers, canary_s=3600) as (engine, _):
        hanging = peers["text"]
        hanging.open.clear()
        with pytest.raises(EngineDown):
            await engine.embed("text", "a")
        assert engine.state == "failed"
        hanging.open.set()


async def test_a_text_on_which_the_tokenizer_hangs_fails_and_those_behind_it_are_answered(
    bundle: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with started(bundle, Peers("text"), canary_s=3600) as (engine, events):
        gate, tokenizer = threading.Event(), engine._preparation.tokenizers["text"]
        encode = tokenizer.encode
        monkeypatch.setattr(type(tokenizer), "encode", lambda _, text: (text != "poison" or gate.wait(20), encode(text))[1])
        poison = asyncio.create_task(engine.embed("text", "poison"))
        await asyncio.sleep(0.05)
        behind = [asyncio.create_task(engine.embed("text", text)) for text in ("a", "b")]
        with pytest.raises(InternalError, match="tokenizer"):
            await poison
        assert [one.vector.shape for one in await asyncio.gather(*behind)] == [(8,), (8,)]
        assert [event for event in events if isinstance(event, ThreadReplaced)] == [ThreadReplaced("tokenize")]
        assert engine.trouble() is None
        gate.set()


async def test_texts_of_one_hand_over_share_no_fate(bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    async with started(bundle, Peers("text"), canary_s=3600) as (engine, events):
        gate, tokenizer = threading.Event(), engine._preparation.tokenizers["text"]
        encode, together = tokenizer.encode, []

        class Panic(BaseException):
            pass

        def encoded(_: object, text: str) -> Prepared:
            together.append(text)
            if text == "panics":
                raise Panic
            return (text != "hangs" or gate.wait(20), encode(text))[1]

        monkeypatch.setattr(type(tokenizer), "encode", encoded)
        texts = ["a", "panics", "b", "hangs", "c"]
        outcomes = await asyncio.gather(*(engine.embed("text", text) for text in texts), return_exceptions=True)
        assert together == [*texts[:4], "c"]  # "c" on the second thread
        assert [type(one) for one in outcomes] == [Embedded, InternalError, Embedded, InternalError, Embedded]
        assert "did not come to an end" in str(outcomes[3])
        assert [event for event in events if isinstance(event, ThreadReplaced)] == [ThreadReplaced("tokenize")]
        gate.set()


async def test_a_text_that_comes_behind_two_on_which_the_tokenizer_hangs_is_told_so(
    bundle: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with started(bundle, Peers("text"), canary_s=3600) as (engine, _):
        gate, tokenizer = threading.Event(), engine._preparation.tokenizers["text"]
        encode = tokenizer.encode
        monkeypatch.setattr(type(tokenizer), "encode", lambda _, text: (not text.startswith("hangs") or gate.wait(20), encode(text))[1])
        texts = ["hangs", "hangs too", "late"]
        outcomes = await asyncio.gather(*(engine.embed("text", text) for text in texts), return_exceptions=True)
        assert [type(one) for one in outcomes] == [InternalError, InternalError, EngineDown]
        assert (await engine.embed("text", "later")).vector.shape == (8,)
        gate.set()


async def test_a_hang_is_not_blamed_on_the_next_text_when_its_caller_has_gone(bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    async with started(bundle, Peers("text"), canary_s=3600) as (engine, _):
        gate, tokenizer = threading.Event(), engine._preparation.tokenizers["text"]
        encode = tokenizer.encode
        monkeypatch.setattr(type(tokenizer), "encode", lambda _, text: (text != "hangs" or gate.wait(20), encode(text))[1])
        hangs, behind = (asyncio.create_task(engine.embed("text", text)) for text in ("hangs", "behind"))
        await asyncio.sleep(0.05)
        hangs.cancel()
        assert (await behind).vector.shape == (8,)
        gate.set()


async def test_texts_that_wait_when_the_engine_stops_are_told_so() -> None:
    class Slow:
        def encode(self, text: str) -> Prepared:
            time.sleep(0.1)
            return Prepared({}, {"tokens": float(len(text))}, truncated=False)

    texts = tokenizing.Tokenizing(lambda: None)
    first = asyncio.create_task(texts.encode(cast(TextTokenizer, Slow()), "abc"))
    await asyncio.sleep(0.02)
    second = asyncio.create_task(texts.encode(cast(TextTokenizer, Slow()), "de"))
    await asyncio.sleep(0)
    texts.close()
    assert (await first).usage == {"tokens": 3.0}
    with pytest.raises(EngineDown, match="stopped"):
        await second


async def test_long_texts_are_handed_over_alone(bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    async with started(bundle, Peers("text"), canary_s=3600) as (engine, _):
        sizes: list[int] = []
        monkeypatch.setattr(tokenizing, "_encode_all", lambda texts, run=tokenizing._encode_all: (sizes.append(len(texts)), run(texts))[1])
        texts = ["a" * 20_000, "b" * 20_000, *(f"short {number}" for number in range(50))]
        await asyncio.gather(*(engine.embed("text", text) for text in texts))
        assert sizes == [1, 51]


async def test_loops_that_take_nothing_are_begun_again(bundle: Bundle) -> None:
    async with started(bundle, Peers("text"), canary_s=3600) as (engine, events):
        lost = engine._encoding._batchers["text"].turns
        async with lost.turn(time.monotonic):  # a turn that nobody gives back
            with pytest.raises(EngineDown):
                await engine.embed("text", "a")
            assert (await engine.embed("text", "b")).vector.shape == (8,)
        assert LoopRestarted("text") in events
        assert engine.state == "ready"


def test_a_runner_that_is_given_up_ends_its_job_with_the_error_and_displaces_the_rest() -> None:
    runner, gate, entered = Runner("test"), threading.Event(), threading.Event()
    first = runner.submit(lambda: (entered.set(), gate.wait(20)))
    assert entered.wait(5)
    second = runner.submit(lambda: 2)
    assert runner.busy_s > 0
    runner.give_up(EngineDown("gone"))
    with pytest.raises(EngineDown):
        first.result(0)
    with pytest.raises(Displaced):
        second.result(0)
    assert runner.is_alive
    gate.set()
    runner.shutdown()
    assert not runner.is_alive


def test_what_is_no_exception_is_one_for_whoever_waits() -> None:
    class Panic(BaseException):
        pass

    def panic() -> None:
        raise Panic

    runner = Runner("test")
    with pytest.raises(InternalError) as raised:
        runner.submit(panic).result(5)
    assert isinstance(raised.value.__cause__, Panic)
    assert runner.submit(lambda: 2).result(5) == 2
    runner.shutdown()


def test_a_graph_that_was_given_up_computes_no_more(tmp_path: Path) -> None:
    toy = open_bundle(build_toy_bundle(tmp_path / "toy"))
    encoder = open_encoder(toy, "text", device="cpu", threads=1)
    artefact = toy.modality("text").artefacts[0]
    batch = collate([still_input(artefact)])
    encoder.encode(batch)
    encoder.terminate()  # type: ignore[attr-defined]
    with pytest.raises(Exception, match=r"(?i)terminat"):
        encoder.encode(batch)
