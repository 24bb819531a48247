"""Each stage of the real server raises, hangs or ends: neighbours are answered, deadlines hold, readiness tells the truth, it goes on."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

from tests.e2e.asking import (
    DEAF,
    FAULTY,
    GATE,
    HELD,
    LOOP_DIES,
    TOKENIZER_HANGS,
    TOKENIZER_PANICS,
    TOKENIZER_RAISES,
    codes,
    connected,
    head,
    lives_on,
    texts,
    wait_until,
)
from tests.e2e.process import Served, serving
from tests.toybundle import ENDLESS_TEXT, NAN_TEXT, RAISING_TEXT, build_toy_bundle


@pytest.fixture(scope="module")
def gate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """While it is there, texts with `HELD` stay in the runtime."""
    return tmp_path_factory.mktemp("gate") / "gate"


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_toy_bundle(tmp_path_factory.mktemp("bundles") / "toy", poisonous=True)


@pytest.fixture(scope="module")
def served(bundle: Path, gate: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    environment = {GATE: str(gate)}
    with serving(
        bundle, tmp_path_factory.mktemp("served"), program=FAULTY, environment=environment, decode_workers=1, cache_bytes=0
    ) as served:
        yield served


@pytest.fixture(autouse=True)
def _lives_on(request: pytest.FixtureRequest) -> Iterator[None]:
    yield
    if "served" in request.fixturenames:
        served: Served = request.getfixturevalue("served")
        lives_on(served, ready_within_s=30)
        assert served.metric("bindery_queue_items{") == 0


@contextmanager
def held(served: Served, gate: Path) -> Iterator[ThreadPoolExecutor]:
    """The runtime works on one text until the context ends: what is asked for meanwhile waits in the ready queue."""
    gate.touch()
    with ThreadPoolExecutor(16) as callers:
        first = callers.submit(texts, served, HELD)
        try:
            wait_until(lambda: served.metric('bindery_heartbeat_age_seconds{model="toy",stage="runtime"}') > 0)
            yield callers
        finally:
            gate.unlink()
        assert codes(first.result()) == [""]


def queued(served: Served, items: int) -> None:
    """Wait until so many items are in work beside the one that is held."""
    wait_until(lambda: served.metric("bindery_queue_items{") == items + 1)


def test_who_waits_for_the_runtime_is_late_there_and_who_leaves_it_is_dropped_there(served: Served, gate: Path) -> None:
    """The first test: once a text was held, the server expects long runs, and refuses who has no time for one."""
    series = 'bindery_{}_total{{device="cpu",engine="onnxruntime/CPUExecutionProvider",modality="text",model="toy",stage="queue"}}'
    missed, dropped = (served.metric(series.format(what)) for what in ("deadline_misses", "items_dropped"))
    with held(served, gate) as callers:
        late = callers.submit(texts, served, "late", timeout_ms=300)
        with connected(served) as line:
            body = b'{"inputs": ["gone"]}'
            line.sendall(head("/v1/embed/text", "application/json", len(body)) + body)
            queued(served, 2)
        answer = late.result()
        assert (answer.status_code, answer.json()["code"]) == (504, "deadline_exceeded")
        assert "stage queue" in answer.json()["detail"]
        queued(served, 0)
    assert served.metric(series.format("deadline_misses")) == missed + 1
    assert served.metric(series.format("items_dropped")) == dropped + 1


@pytest.mark.parametrize("poison", [NAN_TEXT, RAISING_TEXT], ids=["not finite", "raised"])
def test_what_fails_in_a_batch_of_many_callers_fails_for_its_caller_alone(served: Served, gate: Path, poison: str) -> None:
    asked = [*"abcdefg", poison]
    with held(served, gate) as callers:
        answers: list[Future[httpx.Response]] = [callers.submit(texts, served, text) for text in asked]
        queued(served, len(asked))
        runs, items = served.metric("bindery_batch_seconds_count"), served.metric("bindery_batch_items_sum")
    assert [answer.result().status_code for answer in answers] == [200] * 7 + [500]
    assert answers[-1].result().json()["code"] == "internal"
    assert served.metric("bindery_batch_items_sum") == items + 1 + 7
    assert (
        served.metric("bindery_batch_seconds_count") < runs + 1 + 7
    )  # they were in one batch, and most are in one again when it is halved


@pytest.mark.parametrize("poison", [TOKENIZER_RAISES, TOKENIZER_PANICS])
def test_a_text_that_the_tokenizer_fails_on_fails_alone(served: Served, poison: str) -> None:
    assert codes(texts(served, "a", poison, "b")) == ["", "internal", ""]
    alone = texts(served, poison)
    assert (alone.status_code, alone.json()["code"]) == (500, "internal")


def test_a_text_on_which_the_tokenizer_hangs_fails_and_those_behind_it_are_answered(served: Served) -> None:
    replaced = served.metric('bindery_threads_replaced_total{model="toy",stage="tokenize"}')
    assert codes(texts(served, "a", TOKENIZER_HANGS, "b")) == ["", "internal", ""]
    assert served.metric('bindery_threads_replaced_total{model="toy",stage="tokenize"}') == replaced + 1


@pytest.mark.parametrize("poison", [ENDLESS_TEXT, DEAF], ids=["heeds the order to stop", "does not"])
def test_a_graph_that_hangs_is_told_of_and_given_up(served: Served, poison: str) -> None:
    replaced = served.metric('bindery_threads_replaced_total{model="toy",stage="runtime"}')
    with ThreadPoolExecutor() as callers:
        hanging = callers.submit(texts, served, poison)
        wait_until(lambda: served.metric('bindery_heartbeat_age_seconds{model="toy",stage="runtime"}') > 0)
        late = texts(served, "late", timeout_ms=200)
        assert late.json()["code"] in ("deadline_exceeded", "queue_full")  # when runs were long lately, it is not let in
        assert not hanging.done()
        wait_until(lambda: not served.is_ready())
        refused = texts(served, "not now")
        assert (refused.status_code, refused.json()["code"]) == (503, "engine_down")
        assert int(refused.headers["Retry-After"]) >= 1
        assert httpx.get(f"{served.address}/livez").status_code == 200
        answer = hanging.result()
    assert (answer.status_code, answer.json()["code"]) == (503, "engine_down")
    wait_until(served.is_ready)
    assert served.metric('bindery_threads_replaced_total{model="toy",stage="runtime"}') == replaced + 1


def test_a_batching_loop_that_dies_is_begun_again(served: Served) -> None:
    answer = texts(served, LOOP_DIES)
    assert (answer.status_code, answer.json()["code"]) == (503, "engine_down")
    assert codes(texts(served, "a", "b")) == ["", ""]
    assert served.metric("bindery_loop_restarts_total") == 1


@pytest.mark.slow
@pytest.mark.parametrize(("poison", "times"), [(DEAF, 3), (LOOP_DIES, 2)], ids=["threads hang", "the loop dies twice"])
def test_what_only_a_restart_cures_is_said_by_livez_and_sigterm_ends_it(bundle: Path, tmp_path: Path, poison: str, times: int) -> None:
    with serving(bundle, tmp_path, program=FAULTY, decode_workers=1) as served:
        for number in range(times):
            wait_until(served.is_ready)
            assert texts(served, f"{number} {poison}").status_code == 503
        for path in ("/livez", "/readyz"):
            answer = httpx.get(served.address + path)
            assert (answer.status_code, answer.json()["code"]) == (503, "engine_down")
        assert texts(served, "a").json()["code"] == "engine_down"
        served.process.send_signal(signal.SIGTERM)
        assert served.process.wait(60) == 0
