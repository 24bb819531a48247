"""One HTTP process: requests that bring items are read, checked, answered here; the engine's process gets the items alone.

Everything else (collections, jobs, models, metrics, pages) is handed over whole. `/livez` speaks for this process and the engine's.
"""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import cast

from fastapi import FastAPI
from starlette.types import ASGIApp, Receive, Scope, Send

from bindery.errors import BinderyError, EngineDown, Starting
from bindery.limits import Limits
from bindery.settings import Settings
from service import problems
from service.app import guard
from service.edge import Edge
from service.exchange import Exchange
from service.fronts.far import FarLabels, FarModels, FarShares, FarStore, Link
from service.fronts.relay import Relay
from service.keyring import KeyRing
from service.logs import configure_logs
from service.remote import Fetcher, policy_of
from service.routes import classify, embed, health, openai, similarity
from service.state import State
from service.tracing import open_traces

_NEAR = re.compile(r"/v1/(embeddings|similarity|embed/[^/]+|classify/[^/]+)")
"""Addresses whose POST brings items."""


class FrontState:
    """What `service.state.State` is to the routes that are answered here; of all others it knows nothing."""

    def __init__(self, settings: Settings, link: Link, spool: Path) -> None:
        self.settings = settings
        self.spool = spool
        self.metrics = link.reports
        self.fetcher = Fetcher(policy_of(settings), settings.limits)  # it goes along; the engine's process fetches
        self.traces = open_traces(settings)
        self.label_vectors = FarLabels()
        self.store = FarStore(link)
        self._link = link

    @property
    def limits(self) -> Limits:
        return self.settings.limits

    @property
    def models(self) -> FarModels:
        """Raises `Starting`, `EngineDown`."""
        return self._link.models

    @property
    def failed(self) -> bool:
        return self._link.failed

    async def crowd(self, modality: str | None, exchange: Exchange) -> BinderyError | None:
        """As `State.crowd`; the engine is asked only when it has just refused."""
        return await self._link.crowd(modality, exchange)


def create_front(settings: Settings, socket: Path, spool: Path, *, restarted: bool) -> ASGIApp:
    """``socket``: the engine's process'. ``spool``: a folder for uploads while their request runs."""
    configure_logs(settings)
    link, ring = Link(socket, settings.limits, restarted=restarted), KeyRing(settings)
    # The routes see a `State`; `FrontState` has all of it that these routes use.
    state = cast(State, FrontState(settings, link, spool))

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        await link.open()
        try:
            async with ring.watched():
                yield
        finally:
            await link.close()
            if state.traces is not None:
                state.traces.close()

    app = FastAPI(lifespan=lifespan, openapi_url=None, docs_url=None, redoc_url=None, redirect_slashes=False)
    app.state.service = state
    problems.install(app)
    for noun in (embed, openai, classify, similarity, health):
        app.include_router(noun.router)
    guard(app, settings, state, ring, FarShares(link))
    return _Front(app, Relay(socket), state)


class _Front:
    def __init__(self, near: ASGIApp, far: ASGIApp, state: State) -> None:
        self._near = near
        self._far = far
        self._state = state

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or _is_near(scope):
            await self._near(scope, receive, send)
            return
        try:
            if scope["path"] == "/readyz":
                _ = self._state.models  # the engine may be ready before this process has heard of it
            await self._far(scope, receive, send)
        except (EngineDown, Starting) as error:
            refusing = _Refusing(self._state, error)
            await Edge(refusing, self._state)(scope, receive, send)


class _Refusing:
    """Says why nobody is there to hand a request over to: the link knows best."""

    def __init__(self, state: State, error: BinderyError) -> None:
        self._state = state
        self._error = error

    async def __call__(self, *_request: object) -> None:
        _ = self._state.models
        raise self._error


def _is_near(scope: Scope) -> bool:
    path: str = scope["path"]
    if path == "/livez":
        return scope["method"] in ("GET", "HEAD")
    return scope["method"] == "POST" and _NEAR.fullmatch(path) is not None
