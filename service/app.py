"""The application: wiring and lifespan. `create_app(settings)` gives an ASGI app; `bindery serve` runs it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fastapi import FastAPI
from starlette.middleware.cors import CORSMiddleware

from bindery import __version__
from bindery.settings import Settings
from service import page, problems
from service.auth import Doorkeeper
from service.crowd import Crowd
from service.edge import Edge
from service.keyring import KeyRing
from service.logs import configure_logs
from service.openapi import describe_app
from service.remote import Fetcher
from service.routes import about, aliases, classify, collections, embed, health, items, jobs, models, openai, search, similarity, snapshots
from service.shares import Counting, Shares
from service.state import State
from service.tracing import Traces

DESCRIPTION = """Text, image, video, audio, depth and thermal in one space: embed, classify, compare, search.

Every answer carries `X-Request-Id` and `Server-Timing`; a request may carry `X-Request-Timeout-Ms` and `X-Priority`.
Every error is a problem document (RFC 9457): 4xx is about the request, 503 about the server, with `Retry-After`."""

ROUTERS = tuple(
    noun.router
    for noun in (embed, openai, classify, similarity, collections, aliases, snapshots, items, search, jobs, models, about, health)
)


def create_app(settings: Settings | None = None, fetcher: Fetcher | None = None, traces: Traces | None = None) -> FastAPI:
    """An application that starts its engine in the background when it is served. Without ``settings``: from the environment."""
    settings = settings or Settings()
    configure_logs(settings)
    state, ring = State(settings, fetcher, traces), KeyRing(settings)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        await state.open()
        try:
            async with ring.watched():
                yield
        finally:
            await state.close()

    app = FastAPI(
        title="bindery",
        version=__version__,
        description=DESCRIPTION,
        lifespan=lifespan,
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
    )
    app.state.service = state
    app.state.shares = Shares()
    problems.install(app)
    for router in (*ROUTERS, page.router):
        app.include_router(router)
    app.router.default = page.Page(page.WEB, app.router.not_found)
    describe_app(app, asked_for=ring.closed)
    guard(app, settings, state, ring, app.state.shares)
    return app


def guard(app: FastAPI, settings: Settings, state: State, ring: KeyRing, shares: Counting) -> None:
    """What a request passes before it meets a route, the outermost last."""
    app.add_middleware(Crowd, state=state)
    app.add_middleware(Doorkeeper, ring=ring, settings=settings, shares=shares)
    if settings.cors_origins:
        app.add_middleware(
            CORSMiddleware,
            allow_origins=settings.cors_origins,
            allow_methods=["GET", "POST", "PUT", "PATCH", "DELETE"],
            allow_headers=["Authorization", "Content-Type", "X-Request-Id", "X-Request-Timeout-Ms", "X-Priority"],
            expose_headers=["X-Request-Id", "Server-Timing", "Retry-After", "retry-after-ms", "RateLimit", "RateLimit-Policy"],
        )
    app.add_middleware(Edge, state=state)  # last added is outermost
