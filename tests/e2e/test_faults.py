"""What goes wrong in one stage of the real server: the neighbours get their vectors, the deadline holds, and the next request works."""

from __future__ import annotations

import io
import os
import signal
import time
from collections.abc import Iterator

import pytest
from PIL import Image

from tests.e2e.asking import codes, connected, files, head, lives_on, texts, wait_until
from tests.e2e.process import Served, serving
from tests.service.media import large_png, mp4, png
from tests.toybundle import NAN_TEXT, RAISING_TEXT, build_toy_bundle

MIB = 1024 * 1024
DECODE_SECONDS = 3


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    bundle = build_toy_bundle(tmp_path_factory.mktemp("bundles") / "toy", poisonous=True)
    folder = tmp_path_factory.mktemp("served")
    limits = {"limits__decode_seconds": DECODE_SECONDS, "limits__decode_memory_bytes": 128 * MIB}
    with serving(bundle, folder, decode_workers=2, cache_bytes=0, **limits) as served:
        yield served


@pytest.fixture(autouse=True)
def _lives_on(served: Served) -> Iterator[None]:
    """After each fault: ready, and all that is asked for works."""
    yield
    lives_on(served)
    answers = [files(served, "image", png()), files(served, "video", mp4())]
    assert [answer.status_code for answer in answers] == [200, 200], [answer.text for answer in answers]
    wait_until(lambda: len(served.decoders()) == 2)


@pytest.mark.parametrize("poison", [NAN_TEXT, RAISING_TEXT], ids=["not finite", "raised"])
def test_what_a_graph_cannot_do_fails_alone_in_its_batch(served: Served, poison: str) -> None:
    answer = texts(served, "a", "b", f"c {poison}", *"defgh")
    assert codes(answer) == ["", "", "internal", *[""] * 5]
    assert "NaN" not in answer.text
    alone = texts(served, poison)
    assert alone.status_code == 500
    assert alone.json()["code"] == "internal"


def test_a_broken_file_fails_alone_in_its_request(served: Served) -> None:
    assert codes(files(served, "image", png(), png()[:60], png())) == ["", "unreadable_media", ""]
    assert codes(files(served, "video", mp4(), mp4()[:400], mp4())) == ["", "unreadable_media", ""]


def test_a_picture_of_one_pixel_has_a_vector(served: Served) -> None:
    stream = io.BytesIO()
    Image.new("RGB", (1, 1), (9, 9, 9)).save(stream, "PNG")
    assert codes(files(served, "image", stream.getvalue())) == [""]


def test_a_file_that_needs_more_memory_than_there_is_fails_alone(served: Served) -> None:
    assert codes(files(served, "image", png(), large_png(), png())) == ["", "decoder_killed", ""]


def test_a_stalled_decoder_is_killed_and_its_item_fails_alone(served: Served) -> None:
    stalled = served.decoders()[0]
    replaced = served.metric('bindery_workers_replaced_total{reason="timeout"}')
    os.kill(stalled, signal.SIGSTOP)
    found = codes(files(served, "image", *[png()] * 6))
    assert sorted(found) == [*[""] * 5, "decoder_killed"]
    assert stalled not in served.decoders()
    assert served.metric('bindery_workers_replaced_total{reason="timeout"}') == replaced + 1


def test_no_request_outlives_its_deadline_while_everything_stalls(served: Served) -> None:
    for pid in served.decoders():
        os.kill(pid, signal.SIGSTOP)
    began = time.monotonic()
    answer = files(served, "image", png(), png(), timeout_ms=500)
    assert time.monotonic() - began < DECODE_SECONDS  # the deadline has ended it, not the decoders' own limit
    assert answer.status_code == 504
    assert "decode" in answer.json()["detail"]
    assert texts(served, "a").status_code == 200  # texts need no decoder
    assert served.is_ready()


def test_a_client_that_drips_its_body_is_cut_at_its_deadline_and_holds_nobody_up(served: Served) -> None:
    with connected(served) as line:
        line.sendall(head("/v1/embed/image", "image/png", 100_000, "X-Request-Timeout-Ms: 700\r\n"))
        for _ in range(5):
            line.sendall(b"x")
            assert texts(served, "a").status_code == 200
        assert line.recv(1000).startswith(b"HTTP/1.1 504")


def test_the_work_of_a_client_that_has_gone_is_dropped(served: Served) -> None:
    dropped = served.metric("bindery_items_dropped_total")
    for pid in served.decoders():
        os.kill(pid, signal.SIGSTOP)  # so that it cannot be done before the client leaves
    with connected(served) as line:
        body = png()
        line.sendall(head("/v1/embed/image", "image/png", len(body)) + body)
        wait_until(lambda: served.metric("bindery_queue_items") == 1)
    wait_until(lambda: served.metric("bindery_queue_items") == 0)
    assert served.metric("bindery_items_dropped_total") == dropped + 1
    for pid in served.decoders():
        os.kill(pid, signal.SIGCONT)
