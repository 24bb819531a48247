from __future__ import annotations

import time

import pytest

from bindery.engine.admission import CROWD, SURE, Admission, Cost, Costs
from bindery.errors import QueueFull
from bindery.limits import Limits

SECOND = Cost(decode_ms=100.0, infer_ms=1000.0, bytes=1000)


def test_a_cost_is_what_was_measured_and_follows_what_is_measured_later() -> None:
    costs = Costs()
    costs.measured("image", 8.0, 600, decodes=True)
    costs.measured("text", 1.0, 50, decodes=False)
    assert costs.of("image", 100).bytes == 700
    assert costs.of("image", 0).decode_ms > 0
    assert costs.of("text", 0).decode_ms == 0
    for _ in range(100):
        costs.ran("image", 4, 80.0)
        costs.decoded("image", 5.0)
    assert costs.of("image", 0).infer_ms == pytest.approx(20.0, abs=0.1)
    assert costs.of("image", 0).decode_ms == pytest.approx(5.0, abs=0.1)
    assert costs.of("never seen", 7) == Cost(0.0, 0.0, 7)


def test_the_wait_is_that_of_the_slower_stage() -> None:
    admission = Admission(Limits(), decoders=2)
    assert admission.wait_ms("interactive") == 0
    admission.take([Cost(decode_ms=500.0, infer_ms=10.0)] * 8, "interactive", None)
    assert admission.wait_ms("interactive") == 8 * 500 / 2
    seats = admission.take([Cost(infer_ms=3000.0)], "interactive", None)
    assert admission.wait_ms("interactive") == 3080
    seats[0].leave()
    seats[0].leave()
    assert admission.wait_ms("interactive") == 2000


def test_what_is_decoded_no_longer_waits_for_a_decoder_and_all_comes_back_to_nothing() -> None:
    admission = Admission(Limits(), decoders=1)
    seats = admission.take([Cost(0.1, 0.3, 7)] * 1000, "batch", None)
    seats[0].decoded()
    seats[0].decoded()
    for seat in seats:
        seat.leave()
    seats[0].decoded()
    assert (admission.wait_ms("batch"), admission.bytes, admission.seats) == (0, 0, 0)


def test_a_queue_that_is_too_long_in_time_refuses_and_says_when_to_come_back() -> None:
    admission = Admission(Limits(queue_ms=2500), decoders=2)
    admission.take([SECOND] * 4, "interactive", None)
    with pytest.raises(QueueFull, match=r"4000 ms; at most 2500") as refused:
        admission.take([SECOND], "interactive", None)
    assert refused.value.retry_after_ms == 1500


def test_a_deadline_that_passes_in_the_queue_is_refused_at_once() -> None:
    admission = Admission(Limits(), decoders=2)
    admission.take([SECOND] * 2, "interactive", None)
    with pytest.raises(QueueFull, match="deadline"):
        admission.take([SECOND], "interactive", time.monotonic() + 1)
    admission.take([SECOND], "interactive", time.monotonic() + 10)


def test_bytes_bound_the_queue_too() -> None:
    admission = Admission(Limits(queue_bytes=2500), decoders=2)
    admission.take([SECOND] * 2, "interactive", None)
    with pytest.raises(QueueFull, match="2000 bytes") as refused:
        admission.take([SECOND], "interactive", None)
    assert refused.value.retry_after_ms == 500  # a quarter of what is held must go, and all of it takes 2 s
    admission.take([Cost(infer_ms=1, bytes=400)], "interactive", None)


def test_a_request_is_let_in_whole_or_not_at_all_and_an_idle_engine_takes_any() -> None:
    admission = Admission(Limits(queue_items=4), decoders=2)
    first = admission.take([SECOND] * 20, "batch", time.monotonic() + 0.5)
    for seat in first[:17]:
        seat.leave()
    with pytest.raises(QueueFull, match="no room for 2 more"):
        admission.take([SECOND] * 2, "interactive", None)
    assert admission.seats == 3
    admission.take([SECOND], "interactive", None)


def test_batch_work_is_refused_first_and_does_not_make_others_wait() -> None:
    admission = Admission(Limits(queue_ms=4000, queue_items=100), decoders=2)
    admission.take([SECOND] * 4, "batch", None)
    with pytest.raises(QueueFull):
        admission.take([SECOND], "batch", None)
    assert admission.wait_ms("interactive") == 0
    admission.take([SECOND], "interactive", time.monotonic() + 0.5)


def test_a_crowd_is_only_known_after_many_refusals_and_only_while_there_is_no_room() -> None:
    admission = Admission(Limits(queue_ms=2500), decoders=2)
    (seat,) = admission.take([Cost(infer_ms=9000)], "interactive", None)
    for _ in range(CROWD):
        assert admission.crowd("interactive", None) is None
        with pytest.raises(QueueFull):
            admission.take([SECOND], "interactive", None)
    refusal = admission.crowd("interactive", None)
    assert isinstance(refusal, QueueFull)
    assert "9000 ms; at most 2500" in refusal.detail
    seat.leave()
    assert admission.crowd("interactive", None) is None


def test_the_wait_follows_what_work_takes_beside_its_costs(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = [100.0]
    monkeypatch.setattr("bindery.engine.admission.time.monotonic", lambda: clock[0])
    admission = Admission(Limits(), decoders=2)
    seats = admission.take([Cost(infer_ms=100.0)] * 40, "interactive", None)
    told = admission.wait_ms("interactive")
    for seat in seats[:20]:  # each is done in four times its cost, as where the cores have other work too
        clock[0] += 0.4
        seat.answered()
        seat.leave()
    assert told == pytest.approx(4000)
    assert admission.wait_ms("interactive") == pytest.approx(4 * 2000, rel=0.1)
    with pytest.raises(QueueFull, match="deadline"):
        admission.take([Cost(infer_ms=1.0)], "interactive", clock[0] + 9.0)
    for seat in seats[20:]:
        clock[0] += 0.1
        seat.answered()
        seat.leave()
    admission.take([Cost(infer_ms=1000.0)], "interactive", None)
    assert admission.wait_ms("interactive") < 1500  # and back, when it is quicker again


def test_a_deadline_that_the_estimate_only_just_keeps_is_refused() -> None:
    admission = Admission(Limits(), decoders=2)
    admission.take([SECOND] * 4, "interactive", None)
    with pytest.raises(QueueFull, match="deadline"):
        admission.take([SECOND], "interactive", time.monotonic() + 4 / SURE - 0.5)
    admission.take([SECOND], "interactive", time.monotonic() + 4 / SURE + 0.5)


def test_heavy_items_now_and_then_are_no_flood(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = [100.0]
    monkeypatch.setattr("bindery.engine.admission.time.monotonic", lambda: clock[0])
    admission = Admission(Limits(), decoders=2)
    for _ in range(5):
        (seat,) = admission.take([SECOND], "interactive", None)
        clock[0] += 1.0
        seat.answered()
        seat.leave()
        clock[0] += 30.0  # nothing to do
    admission.take([SECOND], "interactive", None)
    assert admission.wait_ms("interactive") == pytest.approx(1000)


def test_what_a_flood_has_taught_is_forgotten_in_the_calm(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = [100.0]
    monkeypatch.setattr("bindery.engine.admission.time.monotonic", lambda: clock[0])
    admission = Admission(Limits(), decoders=2)
    for seat in admission.take([Cost(infer_ms=100.0)] * 40, "interactive", None):
        clock[0] += 1.0
        seat.answered()
        seat.leave()
    for _ in range(60):
        (seat,) = admission.take([Cost(infer_ms=100.0)], "interactive", None)
        clock[0] += 0.1
        seat.answered()
        seat.leave()
    admission.take([SECOND], "interactive", None)
    assert admission.wait_ms("interactive") < 1100
