"""Pages of `docs/` that are made from tables in the code: `python -m service.reference docs`. A test holds them together."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

from bindery.errors import BundleError, CatalogDamaged, CatalogTooNew, error_table
from bindery.limits import Limits
from bindery.settings import Settings
from service.observe import TABLE

_MADE = "<!-- Made by `python -m service.reference docs`; change the table in the code instead. -->"
_INSIDE = (BundleError, CatalogDamaged, CatalogTooNew)


def errors_page() -> str:
    rows = sorted((error.status, error.code, error) for error in error_table() if not issubclass(error, _INSIDE))
    lines = [f"| {status} | `{code}` | {error.title} | {'yes' if error.retryable else 'no'} |" for status, code, error in rows]
    inside = [f"| `{error.code}` | {error.title} |" for error in error_table() if issubclass(error, _INSIDE)]
    return "\n".join(
        [
            "# Errors",
            _MADE,
            "",
            "Every failure is an `application/problem+json` document (RFC 9457). `code` is for programs and does not change;",
            "`detail` is for people: what was wrong and what to do. `errors` points into the request (`/inputs/3`) when parts of it",
            "failed. On `/v1/embeddings` the same document also carries OpenAI's `error` object.",
            "",
            "A 4xx is about the request: sending the same again gives the same answer, but for 408 and 429. A 429 is about you: your",
            "share is used up. A 503 is about the server. Both carry `Retry-After` (seconds) and `retry-after-ms`.",
            "",
            "| status | code | meaning | try again? |",
            "|---|---|---|---|",
            *lines,
            "",
            "These concern the server's own files. The command line and Python show them; over HTTP they are `internal`, and the",
            "log says which.",
            "",
            "| code | meaning |",
            "|---|---|",
            *inside,
            "",
        ]
    )


def metrics_page() -> str:
    lines = [f"| `{row.name}` | {row.kind} | {', '.join(f'`{label}`' for label in row.labels)} | {row.help} |" for row in TABLE]
    head = ["# Metrics", _MADE, "", "`GET /metrics`, in Prometheus' text format; those of the process (`process_*`) beside these.", ""]
    return "\n".join([*head, "| name | kind | labels | what |", "|---|---|---|---|", *lines, ""])


def settings_page() -> str:
    head = ["# Settings", _MADE, "", "Read from the environment once, at the start. Lists are JSON.", ""]
    return "\n".join([*head, "| variable | default | what |", "|---|---|---|", *_settings(), ""])


def _settings() -> Iterator[str]:
    for name, field in Settings.model_fields.items():
        if name != "limits":
            yield f"| `BINDERY_{name.upper()}` | {_shown(field.default)} | {field.description} |"
    for name, field in Limits.model_fields.items():
        yield f"| `BINDERY_LIMITS__{name.upper()}` | {_shown(field.default)} | limit: {field.description} |"


def _shown(default: object) -> str:
    if default is None or default in ((), {}):
        return "none"
    return f"`{default}`"


PAGES: Mapping[str, Callable[[], str]] = {"errors.md": errors_page, "metrics.md": metrics_page, "settings.md": settings_page}


def main(directory: Path) -> None:
    for name, page in PAGES.items():
        (directory / name).write_text(page(), encoding="utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
