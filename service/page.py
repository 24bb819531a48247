"""The web page and the API's own page: static files from `service/web`, and the headers that keep a browser to them."""

from __future__ import annotations

from pathlib import Path

from fastapi import APIRouter
from starlette.exceptions import HTTPException
from starlette.responses import FileResponse, Response
from starlette.staticfiles import StaticFiles
from starlette.types import ASGIApp, Receive, Scope, Send

WEB = Path(__file__).parent / "web"

_HOME = "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self' blob: data:; media-src 'self' blob:; "
# Swagger UI writes styles into its elements.
_DOCS = "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; connect-src 'self'; img-src 'self' data:; "
_CLOSED = "base-uri 'self'; form-action 'self'; frame-ancestors 'none'"

router = APIRouter()


@router.get("/docs", include_in_schema=False)
async def docs() -> Response:
    return _guarded(FileResponse(WEB / "swagger-ui" / "index.html"), _DOCS)


class Page:
    """Answers what no route does: a file of ``directory`` when there is one of that name, else ``otherwise``."""

    def __init__(self, directory: Path, otherwise: ASGIApp) -> None:
        self._files = StaticFiles(directory=directory, html=True)
        self._otherwise = otherwise

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        response = await self._file(scope)
        await (response or self._otherwise)(scope, receive, send)

    async def _file(self, scope: Scope) -> Response | None:
        if scope["type"] != "http" or scope["method"] != "GET":
            return None
        try:
            found = await self._files.get_response(self._files.get_path(scope), scope)
        except HTTPException:  # no such file
            return None
        return _guarded(found, _HOME)


def _guarded(response: Response, policy: str) -> Response:
    response.headers["Content-Security-Policy"] = policy + _CLOSED
    response.headers["Referrer-Policy"] = "no-referrer"
    response.headers["Cross-Origin-Opener-Policy"] = "same-origin"
    # Always asked for again, and almost always answered 304 by its ETag: a new version is seen at once.
    response.headers["Cache-Control"] = "no-cache"
    return response
