from __future__ import annotations

import re
from pathlib import Path

import pytest

from bindery import __version__
from tests.cli.conftest import Run

COMMANDS = (["serve"], ["embed"], ["classify"], ["index"], ["search"], ["bundle", "info"], ["bundle", "verify"])


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_help_shows_an_example(run: Run, command: list[str]) -> None:
    shown = run(*command, "--help")
    assert shown.code == 0
    assert re.search(rb"Example: bindery " + " ".join(command).encode(), shown.out)


def test_help_names_every_command(run: Run) -> None:
    shown = run("--help").out.decode()
    assert all(command[0] in shown for command in COMMANDS)


def test_the_version_is_told(run: Run) -> None:
    shown = run("--version")
    assert (shown.code, shown.out.decode()) == (0, f"bindery {__version__}\n")


@pytest.mark.parametrize(
    "arguments",
    [
        ["nonsense"],
        ["embed"],
        ["embed", "a.wav"],
        ["embed", "--modality", "audio", "a.wav", "--option", "start"],
        ["search", "--collection", "c"],
        ["search", "--collection", "c", "words", "--item", "x"],
        ["search", "--collection", "c", "--file", "a.wav"],
        ["search", "--collection", "c", "words", "--filter", "{"],
        ["search", "--collection", "c", "words", "--filter", "[]"],
    ],
    ids=" ".join,
)
def test_wrong_usage_exits_with_2(run: Run, arguments: list[str]) -> None:
    done = run(*arguments)
    assert done.code == 2
    assert done.out == b""
    assert "Error" in done.err


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["search", "--collection", "nope", "words"], "error[unknown_collection]: there are no collections in"),
        (["embed", "--modality", "smell", "a"], "error[unknown_modality]: bundle 'toy' has no modality 'smell'; it has: audio"),
        (["embed", "--modality", "text", "a", "--bundle", "nowhere"], "error[bundle_not_found]"),
        (["embed", "--modality", "text", "a", "--device", "abacus"], "error[invalid_parameter]: setting device"),
        (["bundle", "info", "nowhere"], "error[bundle_not_found]"),
        (["index", "/nowhere", "--collection", "c"], "error[invalid_parameter]: /nowhere is not a folder"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_a_failure_is_one_line_without_a_traceback(run: Run, arguments: list[str], told: str) -> None:
    done = run(*arguments)
    assert done.code == 1
    assert done.out == b""
    assert done.err.startswith(told)
    assert len(done.err.splitlines()) == 1


def test_bundle_verify_names_the_file_that_was_changed(run: Run, tmp_path: Path, toy: Path) -> None:
    assert run("bundle", "info", toy).json["dimension"] == 8
    assert b"files as the manifest says" in run("bundle", "verify", toy).out
    copy = tmp_path / "copy"
    for path in toy.rglob("*"):
        if path.is_file():
            (copy / path.relative_to(toy)).parent.mkdir(parents=True, exist_ok=True)
            (copy / path.relative_to(toy)).write_bytes(path.read_bytes())
    graph = copy / "audio/model.onnx"
    graph.write_bytes(graph.read_bytes()[:-1] + b"\0")
    done = run("bundle", "verify", copy)
    assert done.code == 1
    assert done.err.startswith(f"error[bundle_damaged]: {graph}")
