"""`bindery serve`: the HTTP service, found by name, because the core imports no web framework."""

from __future__ import annotations

import signal
from collections.abc import Callable
from functools import partial
from importlib import import_module
from typing import TYPE_CHECKING, Annotated, Any

import typer

from bindery.cli.console import DONE, FAILED
from bindery.cli.loading import loading
from bindery.cli.options import Bundle, DataDir, Device, Precision, Threads, settings_of
from bindery.errors import InvalidParameter

if TYPE_CHECKING:
    from bindery.settings import Settings

Host = Annotated[str | None, typer.Option("--host", help="Address to listen on [default: 127.0.0.1].")]
Port = Annotated[int | None, typer.Option("--port", help="Port to listen on [default: 8000].")]
Workers = Annotated[int | None, typer.Option("--http-workers", help="HTTP processes in front of the engine's [default: 1, no others].")]


def serve(
    bundle: Bundle = None,
    host: Host = None,
    port: Port = None,
    data_dir: DataDir = None,
    device: Device = None,
    precision: Precision = None,
    threads: Threads = None,
    http_workers: Workers = None,
) -> None:
    """Serve the HTTP API and the web page until interrupted. Other settings come from BINDERY_* in the environment."""
    with loading():
        settings = settings_of(
            bundle=bundle,
            host=host,
            port=port,
            data_dir=data_dir,
            device=device,
            precision=precision,
            threads=threads,
            http_workers=http_workers,
        )
        _check(settings)
        run = _several(settings) if settings.http_workers > 1 else _one(settings)
    raise typer.Exit(run())


def _several(settings: Settings) -> Callable[[], int]:
    return partial(_service("service.fronts.supervisor").serve, settings)


def _one(settings: Settings) -> Callable[[], int]:
    processes = _service("service.fronts.processes")
    server = processes.http_server(_service("service.app").create_app(settings), settings)
    processes.settle()
    return partial(_run, server)


def _service(module: str) -> Any:
    try:
        return import_module(module)
    except ModuleNotFoundError as error:
        raise InvalidParameter(f"the service cannot be started: {error.name} is not installed") from error


def _run(server: Any) -> int:
    # uvicorn drains on SIGTERM and then raises it again; after an orderly stop the exit code is 0, not a death by signal.
    signal.signal(signal.SIGTERM, lambda *_: None)
    try:
        server.run()
    except SystemExit:  # uvicorn's own way out when it cannot start, with codes that mean something else here; its log says why
        return FAILED
    return DONE if server.started else FAILED


def _check(settings: Settings) -> None:
    """What would keep the service from starting, told in a line before a web server wraps it in a traceback."""
    from bindery.bundle import find_bundle
    from bindery.collections import open_store

    for name in settings.bundle_names():
        find_bundle(name, settings.bundle_places())
    open_store(settings).close()
