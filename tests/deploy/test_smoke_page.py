"""The smoke check follows what a page names, and fails on what is missing or lies elsewhere."""

from __future__ import annotations

from pathlib import Path

import pytest
from checks.client import Client, Failed, Reply
from checks.operation import the_page_and_what_it_needs
from checks.service import Service

PAGE = '<link rel="icon" href="data:image/svg+xml,x"><link rel="stylesheet" href="web/style.css"><script src="./web/app.js"></script>'
SITE = {
    "/": ("text/html", PAGE),
    "/web/style.css": (
        "text/css",
        "a { background: url(mark.svg) } b { src: url('data:font/woff2;base64,AA==') } c { fill: url(#x) }",
    ),
    "/web/app.js": ("text/javascript", 'import { a } from "./a.js";\nconst later = import("./b.js");'),
    "/web/a.js": ("text/javascript", 'export { b } from "./b.js"; // see https://example.org'),
    "/web/b.js": ("text/javascript", ""),
    "/web/mark.svg": ("image/svg+xml", '<svg xmlns="http://www.w3.org/2000/svg"/>'),
}


class Site(Client):
    """Serves from a table."""

    def __init__(self, files: dict[str, tuple[str, str]]) -> None:
        super().__init__("http://nowhere")
        self.files = files

    def call(self, method: str, path: str, **_: object) -> Reply:  # type: ignore[override]  # only what the check uses
        if path not in self.files:
            raise Failed(f"{method} {path}: 404")
        media_type, text = self.files[path]
        return Reply(f"{method} {path}", 200, {"content-type": f"{media_type}; charset=utf-8"}, text.encode())


def check(files: dict[str, tuple[str, str]]) -> str:
    return the_page_and_what_it_needs(Service(Site(files), Path(), "toy", 8, {"text": "text"}))


def test_every_file_is_found_by_what_names_it() -> None:
    assert check(SITE) == "6 files"


@pytest.mark.parametrize("missing", ["/web/b.js", "/web/mark.svg"])
def test_a_missing_file_fails(missing: str) -> None:
    with pytest.raises(Failed, match=missing):
        check({path: file for path, file in SITE.items() if path != missing})


@pytest.mark.parametrize("outside", ["https://example.org/a.js", "//example.org/a.js"])
def test_an_outside_address_fails(outside: str) -> None:
    with pytest.raises(Failed, match="outside this service"):
        check(SITE | {"/": ("text/html", f'<script defer src="{outside}"></script>')})
