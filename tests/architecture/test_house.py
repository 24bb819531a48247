"""The house rules that a machine can see."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
ROOMS = ("bindery", "service", "training", "export")
MODULES = sorted(p for room in ROOMS for p in (ROOT / room).rglob("*.py"))
VAGUE = re.compile(r"^(utils?|helpers?|common|misc|manager|base)\.py$")


@pytest.mark.parametrize("path", MODULES, ids=lambda p: str(p.relative_to(ROOT)))
def test_a_module_has_one_idea(path: Path) -> None:
    assert not VAGUE.match(path.name)
    assert len(path.read_text().splitlines()) <= 400, "look for the second idea in it"


def test_nothing_names_a_place_outside_the_project() -> None:
    outside = re.compile(r"\.\./shared|/work/")
    allowed = {Path("Makefile"), Path("README.md"), Path("docs/training.md"), Path("tests/architecture/test_house.py")}
    suffixes = {".py", ".toml", ".md", ".sh", ".yaml", ".yml", ".html", ".js"}
    hits = [
        str(path.relative_to(ROOT))
        for room in (*ROOMS, "tests", "docs", "deploy", "bench", "examples")
        for path in (ROOT / room).rglob("*")
        if path.suffix in suffixes and path.relative_to(ROOT) not in allowed and outside.search(path.read_text(errors="replace"))
    ]
    assert hits == []
