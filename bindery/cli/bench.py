"""`bindery bench`: what a server at an address can do."""

from __future__ import annotations

import asyncio
import json
import secrets
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

from bindery.cli.console import note, print_table, write_bytes
from bindery.extras import needing

app = typer.Typer(help="Measure a running service.", no_args_is_help=True, rich_markup_mode=None)


class Arrivals(StrEnum):
    poisson = "poisson"
    constant = "constant"


@app.callback()
def bench() -> None:
    """Measure a running service."""


@app.command(epilog="Example: bindery bench load http://127.0.0.1:8000 --rate 50 --duration 60 --plot load.png")
def load(
    url: Annotated[str, typer.Argument(metavar="URL", help="The service's address.")],
    rate: Annotated[float, typer.Option("--rate", min=0.01, help="Requests a second.")] = 20.0,
    duration: Annotated[float, typer.Option("--duration", min=0.1, help="Seconds.")] = 30.0,
    mix: Annotated[str, typer.Option("--mix", help="Weights of text, image, audio and video.")] = "text=80,image=15,audio=4,video=1",
    poison: Annotated[float, typer.Option("--poison", min=0, max=1, help="Share of requests with a broken file.")] = 0.0,
    arrivals: Annotated[Arrivals, typer.Option("--arrivals", help="poisson, or constant gaps.")] = Arrivals.poisson,
    deadline_ms: Annotated[int, typer.Option("--deadline-ms", min=1, help="Later answers do not count; told to the service.")] = 30_000,
    connections: Annotated[int, typer.Option("--connections", min=1, help="Most open requests; more are dropped here.")] = 512,
    key: Annotated[str | None, typer.Option("--key", help="An API key of the scope read.")] = None,
    seed: Annotated[int | None, typer.Option("--seed", help="Same seed, same requests. [default: drawn, and told]")] = None,
    out: Annotated[Path | None, typer.Option("--out", help="Write the result as JSON.")] = None,
    plot: Annotated[Path | None, typer.Option("--plot", help="Draw latencies and rates (needs the extra plot).")] = None,
) -> None:
    """Send made texts and media at a steady rate, whether or not they are answered, and tell goodput, latencies and refusals."""
    from bindery.traffic.generator import Plan, run_load
    from bindery.traffic.mix import parse_mix
    from bindery.traffic.summary import summarise

    if plot is not None:
        with needing("plot", "--plot"):  # before the run, not after
            from bindery.traffic.plot import draw_run
    seed = secrets.randbelow(2**32) if seed is None else seed  # else a second run is answered by the server's cache
    plan = Plan(url, rate, duration, arrivals.value, deadline_ms, poison, connections, key, seed)
    run = asyncio.run(run_load(plan, parse_mix(mix)))
    result = {"url": url, "mix": mix} | summarise(run)
    _show(result)
    if out is not None:
        write_bytes((json.dumps(result, indent=1) + "\n").encode(), out)
    if plot is not None:
        draw_run(run, plot)


def _show(result: dict[str, Any]) -> None:
    typer.echo(
        f"{result['requests']} requests in {result['duration_s']:g} s ({result['arrivals']}, {result['rate_per_s']:g}/s): "
        f"{result['good']} good, goodput {result['goodput_per_s']:g}/s, {result['late']} late; --seed {result['seed']}"
    )
    rows = {"all good": result["latency_ms"], **result["latency_ms_by_kind"], "refused": result["refused_latency_ms"]}
    shown = [(name, *(f"{value:.1f}" for value in ms.values())) for name, ms in rows.items() if ms]
    if shown:
        print_table(("latency, ms", "p50", "p90", "p99", "p99.9"), shown)
    for code, count in result["errors"].items():
        typer.echo(f"{count:6d}  {code}")
    poison = result["poison"]
    if poison["sent"]:
        typer.echo(f"{poison['sent']:6d}  broken files, {poison['refused_rightly']} of them refused as such")
    if result["client_too_busy"]:
        note(f"the generator used {result['client_cpu_share']:.0%} of a core and may have been late: send less, or from elsewhere")
