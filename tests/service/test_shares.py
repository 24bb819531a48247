"""Shares of one caller, with a clock of our own."""

from __future__ import annotations

import pytest

from bindery.errors import RateLimited, TooManyInflight
from service.shares import Allowance, Shares


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def test_a_minutes_worth_may_come_at_once_and_then_as_it_fills_again() -> None:
    clock, allowance = Clock(), Allowance(requests_per_minute=30)
    shares = Shares(clock)
    for _ in range(30):
        shares.enter("a", allowance)
    with pytest.raises(RateLimited) as refused:
        shares.enter("a", allowance)
    assert refused.value.retry_after_ms == 2000  # one in two seconds
    clock.now += 1.99
    with pytest.raises(RateLimited):
        shares.enter("a", allowance)
    clock.now += 0.02
    shares.enter("a", allowance)
    with pytest.raises(RateLimited):
        shares.enter("a", allowance)
    shares.enter("b", allowance)  # another caller has a share of its own


def test_the_bucket_holds_no_more_than_a_minute() -> None:
    clock, allowance = Clock(), Allowance(requests_per_minute=2)
    shares = Shares(clock)
    shares.enter("a", allowance)
    clock.now += 86_400
    shares.enter("a", allowance)
    shares.enter("a", allowance)
    with pytest.raises(RateLimited):
        shares.enter("a", allowance)


def test_a_place_is_free_again_when_a_request_leaves() -> None:
    allowance = Allowance(inflight=2)
    shares = Shares(Clock())
    shares.enter("a", allowance)
    shares.enter("a", allowance)
    with pytest.raises(TooManyInflight) as refused:
        shares.enter("a", allowance)
    assert refused.value.retry_after_ms
    shares.leave("a")
    shares.enter("a", allowance)


def test_what_was_refused_for_its_place_has_cost_no_token() -> None:
    allowance = Allowance(requests_per_minute=2, inflight=1)
    shares = Shares(Clock())
    shares.enter("a", allowance)
    for _ in range(5):
        with pytest.raises(TooManyInflight):
            shares.enter("a", allowance)
    shares.leave("a")
    shares.enter("a", allowance)


def test_the_headers_say_what_is_left() -> None:
    allowance = Allowance(requests_per_minute=60, inflight=3)
    shares = Shares(Clock())
    shares.enter("a", allowance)
    assert shares.headers("a", allowance) == {
        "RateLimit-Policy": '"requests";q=60;w=60, "inflight";q=3;qu="concurrent-requests"',
        "RateLimit": '"requests";r=59;t=1, "inflight";r=2',
    }
    assert shares.headers("a", Allowance()) == {}


def test_many_addresses_take_bounded_memory_and_none_in_work_is_forgotten() -> None:
    allowance = Allowance(requests_per_minute=10, inflight=1)
    shares = Shares(Clock(), capacity=10)
    shares.enter("busy", allowance)
    for index in range(1000):
        shares.enter(f"other {index}", allowance)
        shares.leave(f"other {index}")
    assert len(shares._accounts) == 10
    with pytest.raises(TooManyInflight):
        shares.enter("busy", allowance)
