"""Packages that not every user needs: the extras of this one."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from bindery.errors import InvalidParameter


@contextmanager
def needing(extra: str, what: str, *, pointer: str | None = None) -> Iterator[None]:
    """Around an import that ``what`` needs; ask before anything costs. Raises `InvalidParameter` that says what to install."""
    try:
        yield
    except ModuleNotFoundError as error:
        package = (error.name or extra).partition(".")[0]
        detail = f"{what} needs {package}, which is not installed: pip install 'bindery[{extra}]'"
        raise InvalidParameter(detail, pointer=pointer) from error
