from __future__ import annotations

import sys
from importlib import import_module

import pytest

from bindery.errors import InvalidParameter
from bindery.extras import needing


def test_what_is_missing_is_named_with_the_extra_that_brings_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "away.inside", None)
    expected = r"^--fly needs away, which is not installed: pip install 'bindery\[wings\]'$"
    with pytest.raises(InvalidParameter, match=expected) as caught, needing("wings", "--fly", pointer="/fly"):
        import_module("away.inside")
    assert caught.value.pointer == "/fly"


def test_other_errors_of_an_import_stay_what_they_are() -> None:
    with pytest.raises(ImportError, match="cannot import name"), needing("wings", "--fly"):
        from bindery.errors import NoSuchError  # type: ignore[attr-defined]  # noqa: F401
