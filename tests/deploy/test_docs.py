"""docs/deploy.md names what there is to set, with the defaults that are in force."""

from __future__ import annotations

import re
from enum import Enum
from pathlib import Path

import pytest

from tests.deploy.variables import VARIABLES


@pytest.fixture(scope="module")
def rows(root: Path) -> dict[str, str]:
    """The table of settings: variable -> its default column."""
    table = re.findall(r"^\| `(BINDERY_\w+)` \| (.+?) \| .+ \|$", (root / "docs" / "deploy.md").read_text(), re.MULTILINE)
    return dict(table)


@pytest.mark.parametrize("variable", VARIABLES)
def test_every_setting_is_in_the_table_with_its_default(variable: str, rows: dict[str, str]) -> None:
    assert variable in rows, f"add a row for {variable} to docs/deploy.md"
    assert rows[variable].startswith(written(VARIABLES[variable])), f"the default of {variable} is {VARIABLES[variable]!r}"


def test_the_table_names_no_setting_that_is_gone(rows: dict[str, str]) -> None:
    assert set(rows) - set(VARIABLES) == set()


def written(default: object) -> str:
    """A default as an operator would write it in the environment."""
    if default is None or default == ():
        return "none"
    if isinstance(default, bool):
        return f"`{str(default).lower()}`"
    return f"`{default.value if isinstance(default, Enum) else default}`"
