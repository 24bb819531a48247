"""What runs in each process of a service with several: the application with its engine, or one HTTP process. See `supervisor`."""

from __future__ import annotations

import asyncio
import gc
import multiprocessing
import os
import signal
import socket
import threading
from collections.abc import Callable
from functools import partial
from multiprocessing.connection import Connection, wait
from pathlib import Path

import structlog
import uvicorn
import uvloop

from bindery.settings import Settings

log = structlog.get_logger(__name__)

_COLLECT_AFTER = (1000, 2, 1000)
"""New objects until the youngest are looked at (Python: 700), and how many such looks until the next older ones are (10 and 10).

Of the middle ones few at a time, since the event loop stands still meanwhile: with 5 in place of 2 it did for 5 to 12 ms."""

UNREAD_S = 60.0
"""For how long a client may take nothing of what was sent to it; then its connection ends."""

ACCEPTS = 16
"""Connections that are taken in at once. uvloop takes one each time round its loop: a crowd that comes all at once would wait for its turn
while those who are in already are answered, and be refused late."""

SOCKET = "engine"  # its name in the service's private folder


def run_engine(settings: Settings, folder: Path, orders: Connection) -> None:
    """The application, for the HTTP processes alone; until ordered to stop. Raises what keeps it from starting."""
    _be_led()
    uvloop.run(_engine(settings, folder / SOCKET, orders))


async def _engine(settings: Settings, path: Path, orders: Connection) -> None:
    from service.app import create_app
    from service.fronts.desk import Desk

    app, stop = create_app(settings), asyncio.Event()
    settle()
    loop = asyncio.get_running_loop()
    _obey(orders, lambda: loop.call_soon_threadsafe(stop.set))
    path.unlink(missing_ok=True)  # of an engine that was killed
    async with app.router.lifespan_context(app), Desk(app).open(path):
        await stop.wait()


def run_front(settings: Settings, folder: Path, spool: Path, listening: socket.socket, orders: Connection, restarted: bool) -> None:
    """One HTTP process on a socket that the supervisor bound; until ordered to stop, and then until its requests are answered."""
    _be_led()
    from service.fronts.front import create_front

    server = http_server(create_front(settings, folder / SOCKET, spool, restarted=restarted), settings)
    settle()
    _obey(orders, lambda: setattr(server, "should_exit", True))
    server.run(sockets=[listening])


def settle() -> None:
    """Call it when the application is made and nothing runs yet: modules, classes and routes live as long as the process.

    A hundred thousand objects that never die are all that a full collection of garbage would look at, and the event loop stands still
    meanwhile: 100 to 300 ms, every few seconds under a flood. What comes later, models that can be unloaded too, is looked at as before,
    only less often: requests are freed without the collector, but all that are open are looked at by it.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(*_COLLECT_AFTER)


class _Server(uvicorn.Server):
    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """As uvicorn's, but lines end on which nobody reads, and `ACCEPTS` lines are taken in at once: as many servers have one socket."""
        await super().startup(sockets)
        loop, config = asyncio.get_running_loop(), self.config
        line = partial(config.http_protocol_class, config=config, server_state=self.server_state, app_state=self.lifespan.state)  # type: ignore[call-arg]
        for listening in [one for server in self.servers for one in server.sockets]:
            with socket.socket(fileno=os.dup(listening.fileno())) as same:
                _end_unread(same)
            for _ in range(ACCEPTS - 1):
                same = socket.socket(fileno=os.dup(listening.fileno()))
                self.servers.append(await loop.create_server(line, sock=same, backlog=config.backlog))


def _end_unread(listening: socket.socket) -> None:
    """Who does not read an answer would hold it, and a line, for as long as the kernel knows that somebody is there: for ever.

    Accepted connections have this from the socket that they came to. Only Linux offers it.
    """
    if hasattr(socket, "TCP_USER_TIMEOUT"):
        listening.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, round(UNREAD_S * 1000))


def http_server(app: object, settings: Settings) -> uvicorn.Server:
    """How uvicorn serves this API, in one process or in several."""
    return _Server(
        uvicorn.Config(
            app,  # type: ignore[arg-type]
            host=settings.host,
            port=settings.port,
            log_config=None,  # the service sets up its own
            access_log=False,
            server_header=False,
            ws="none",  # this API has no web sockets, and loading what speaks them takes a tenth of a second
            timeout_graceful_shutdown=max(1, round(settings.drain_seconds)),
        )
    )


def _be_led() -> None:
    """Signals to the whole group (a terminal, systemd) reach the supervisor too, and that one stops all in their order."""
    for name in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):  # the key ring takes SIGHUP over
        signal.signal(name, lambda *_: None)


def _obey(orders: Connection, stop: Callable[[], object]) -> None:
    """In a thread: stop when told, and end at once when the supervisor is gone, however it ended: nobody else would stop this process."""
    parent = multiprocessing.parent_process()
    assert parent is not None, "this process has no supervisor. This is a bug."

    def listen() -> None:
        while True:
            if parent.sentinel in (ready := wait([orders, parent.sentinel])):
                os._exit(1)
            if orders in ready:
                orders.recv()
                stop()

    threading.Thread(target=listen, name="orders", daemon=True).start()
