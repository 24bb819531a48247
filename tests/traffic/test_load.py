"""The load generator against a server that answers as told: latency counts from the due time, and nothing waits for an answer."""

from __future__ import annotations

import asyncio
import json
import random
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from itertools import pairwise
from pathlib import Path
from statistics import fmean

import pytest
from typer.testing import CliRunner

from bindery.cli.main import app
from bindery.errors import InvalidParameter
from bindery.kinds import KINDS, parse_options
from bindery.limits import Limits
from bindery.media.source import Source
from bindery.settings import Settings
from bindery.spec import AudioSpec, ImageSpec, Spec, VideoSpec
from bindery.traffic.arrivals import due_times
from bindery.traffic.client import Client
from bindery.traffic.generator import Outcome, Plan, Run, run_load
from bindery.traffic.mix import Mix, parse_mix
from bindery.traffic.plot import draw_run
from bindery.traffic.summary import percentiles, summarise
from tests.service.conftest import served
from tests.toybundle import build_toy_bundle

GOOD = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}"
FULL = b'HTTP/1.1 503 Busy\r\nContent-Length: 21\r\n\r\n{"code":"queue_full"}'


CLOSING = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\n{}"


@asynccontextmanager
async def answering(answer: bytes, delay_s: float = 0.0, met: list[int] | None = None) -> AsyncIterator[str]:
    """A server that reads a request and gives ``answer`` after a while. ``met`` grows by one a connection."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if met is not None:
            met.append(1)
        try:
            while head := (await reader.readuntil(b"\r\n\r\n")).decode():
                length = int(head.lower().split("content-length: ")[1].split("\r\n")[0])
                await reader.readexactly(length)
                await asyncio.sleep(delay_s)
                writer.write(answer)
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with server:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"


def test_arrivals_have_the_rate_asked_for() -> None:
    constant = list(due_times(10, 2, "constant", random.Random(0)))
    assert constant == pytest.approx([0.1 * n for n in range(1, 20)])
    poisson = list(due_times(1000, 10, "poisson", random.Random(0)))
    assert len(poisson) == pytest.approx(10_000, rel=0.05)
    gaps = [b - a for a, b in pairwise(poisson)]
    spread = fmean((gap - 0.001) ** 2 for gap in gaps) ** 0.5
    assert spread == pytest.approx(0.001, rel=0.1)  # as wide as its mean: exponential gaps


def test_what_is_drawn_is_mixed_by_weight_and_never_the_same_twice() -> None:
    mix = Mix({"text": 3, "image": 1}, 0.1, random.Random(1))
    drawn = [mix.draw() for _ in range(2000)]
    assert len({parcel.body for parcel in drawn}) == len(drawn)
    sound = [parcel for parcel in drawn if not parcel.poison]
    assert sum(parcel.kind == "text" for parcel in sound) / len(sound) == pytest.approx(0.75, abs=0.04)
    assert len(sound) / len(drawn) == pytest.approx(0.9, abs=0.03)
    again = Mix({"text": 3, "image": 1}, 0.1, random.Random(1))
    assert [again.draw() for _ in range(50)] == drawn[:50]
    other = Mix({"text": 3, "image": 1}, 0.1, random.Random(2))
    assert not {parcel.body for parcel in drawn} & {other.draw().body for _ in range(2000)}


@pytest.mark.parametrize(("kind", "spec"), [("image", ImageSpec()), ("audio", AudioSpec()), ("video", VideoSpec())])
def test_made_media_are_what_they_say(kind: str, spec: Spec) -> None:
    prepare = KINDS[kind].prepare
    assert prepare is not None
    parcel = Mix({kind: 1}, 0, random.Random(0)).draw()
    assert prepare(Source.of(parcel.body), spec, parse_options(kind, {}), Limits()).tensors["pixel_values"].shape[-1] > 1


@pytest.mark.parametrize("text", ["text", "text=x", "smell=1", "text=-1", "text=0", "text=nan", ""])
def test_a_mix_that_makes_no_sense_is_told(text: str) -> None:
    with pytest.raises(InvalidParameter, match="--mix"):
        parse_mix(text)


async def test_a_slow_server_does_not_slow_its_own_load_down() -> None:
    async with answering(GOOD, delay_s=0.5) as url:
        run = await run_load(Plan(url, rate=50, duration_s=1, arrivals="constant"), {"text": 1.0})
    assert len(run.outcomes) == 49  # a closed loop would have sent two
    assert all(outcome.status == 200 and outcome.latency_ms >= 500 for outcome in run.outcomes)


@pytest.mark.parametrize(("answer", "most"), [(GOOD, 3), (CLOSING, 12)])
async def test_connections_are_kept_unless_the_server_says_close(answer: bytes, most: int) -> None:
    met: list[int] = []
    async with answering(answer, met=met) as url:
        client = Client(url, {})
        for _ in range(4):
            await asyncio.gather(*(client.post("/", "text/plain", b"x") for _ in range(3)))
        client.close()
    assert len(met) == most


async def test_open_requests_are_bounded_and_what_is_over_counts_as_dropped() -> None:
    async with answering(GOOD, delay_s=0.5) as url:
        run = await run_load(Plan(url, rate=50, duration_s=0.5, arrivals="constant", connections=3), {"text": 1.0})
    result = summarise(run)
    assert result["errors"]["client_dropped"] >= 15
    assert result["good"] + result["errors"]["client_dropped"] == result["requests"] == len(run.outcomes)


async def test_refusals_and_silence_are_counted_by_code() -> None:
    async with answering(FULL) as url:
        refused = summarise(await run_load(Plan(url, rate=50, duration_s=0.2), {"text": 1.0}))
    assert set(refused["errors"]) == {"queue_full"}
    assert refused["goodput_per_s"] == 0
    assert set(refused["refused_latency_ms"]) == {"p50", "p90", "p99", "p99.9"}
    nobody = summarise(await run_load(Plan(url, rate=50, duration_s=0.2), {"text": 1.0}))
    assert set(nobody["errors"]) == {"no_connection"}


def test_only_answers_in_time_are_good_and_a_broken_file_refused_is_no_error() -> None:
    plan = Plan("http://x", duration_s=2, deadline_ms=100)
    outcomes = [Outcome("text", 0.1, ms, 200, "", False) for ms in (10, 20, 30, 500)]
    outcomes += [Outcome("image", 0.2, 5, 422, "unreadable_media", True), Outcome("image", 0.3, 5, 503, "queue_full", True)]
    result = summarise(Run(plan, outcomes, cpu_share=0.9))
    assert (result["good"], result["late"], result["goodput_per_s"]) == (3, 1, 1.5)
    assert result["errors"] == {"queue_full": 1}
    assert result["poison"] == {"sent": 2, "refused_rightly": 1}
    assert result["client_too_busy"]


def test_the_generators_own_lateness_is_told_apart_and_stays_in_the_latency() -> None:
    outcomes = [Outcome("text", 0.1, 30.0, 503, "queue_full", False, lag_ms=10.0), Outcome("text", 0.2, 0.0, 0, "client_dropped", False)]
    result = summarise(Run(Plan("http://x"), outcomes, cpu_share=0.1))
    assert result["refused_latency_ms"]["p99"] == 30.0
    assert result["refused_latency_ms_from_sending"]["p99"] == 20.0
    assert result["generator_lag_ms"]["p50"] == 10.0


async def test_a_request_that_was_begun_late_says_so() -> None:
    async def hold_up() -> None:
        await asyncio.sleep(0.1)
        time.sleep(0.2)

    async with answering(FULL) as url:
        holding = asyncio.create_task(hold_up())
        run = await run_load(Plan(url, rate=100, duration_s=0.4, arrivals="constant"), {"text": 1.0})
        await holding
    late = max(run.outcomes, key=lambda outcome: outcome.lag_ms)
    assert 100 < late.lag_ms < late.latency_ms


def test_percentiles_are_of_values_that_were_measured() -> None:
    outcomes = [Outcome("text", 0, float(ms), 200, "", False) for ms in range(1, 1001)]
    assert percentiles(outcomes) == {"p50": 500.0, "p90": 900.0, "p99": 990.0, "p99.9": 999.0}
    assert percentiles([]) == {}


def test_a_run_is_drawn(tmp_path: Path) -> None:
    run = Run(Plan("http://x", duration_s=2), [Outcome("text", 0.5, 3.0, 200, "", False)], 0.1)
    draw_run(run, tmp_path / "load.png")
    assert (tmp_path / "load.png").read_bytes().startswith(b"\x89PNG")
    with pytest.raises(InvalidParameter, match="plot"):
        draw_run(run, tmp_path / "load.nothing")


def test_the_command_measures_a_real_service(tmp_path: Path) -> None:
    settings = Settings(bundle=str(build_toy_bundle(tmp_path / "toy")), data_dir=tmp_path / "data", threads=1, log_level="error")
    out = tmp_path / "load.json"
    with served(settings) as address:
        arguments = ["bench", "load", address, "--rate", "8", "--duration", "4", "--poison", "0.2", "--seed", "7", "--out", str(out)]
        ended = CliRunner().invoke(app, [*arguments, "--mix", "text=1,image=1,audio=1,video=1"])
    assert ended.exit_code == 0, ended.output
    result = json.loads(out.read_text())
    assert set(result["latency_ms_by_kind"]) == {"text", "image", "audio", "video"}
    assert all(result["latency_ms_by_kind"].values())
    assert result["errors"] == {}
    assert result["poison"]["sent"] == result["poison"]["refused_rightly"] > 0
    assert result["good"] + result["poison"]["sent"] == result["requests"]
    assert "goodput" in ended.output
    assert "--seed 7\n" in ended.output
    assert result["seed"] == 7
