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


def test_each_benchmark_is_run_by_make_bench_or_named_among_those_that_need_more() -> None:
    scripts = {
        path.stem for path in (ROOT / "bench").glob("*.py") if "Run: " in path.read_text() or "writes bench/results" in path.read_text()
    }
    listed = re.search(r"^BENCHES \?= (.+)$", (ROOT / "Makefile").read_text(), re.MULTILINE)
    assert listed is not None
    page = (ROOT / "bench/README.md").read_text()
    need_more = set(re.findall(r"^\| `(\w+)\.py", page, re.MULTILINE))
    run, said = listed[1].split(), re.search(r"the shortest first: (.+?)\. All", page, re.DOTALL)
    assert said is not None
    assert re.findall(r"`(\w+)`", said[1]) == run
    assert scripts - {"torch_peer"} == set(run) | (need_more - set(run))
