"""docs/python.md can be pasted, block after block."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[1]


def test_the_page_runs_from_top_to_bottom(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    blocks = re.findall(r"```python\n(.*?)```", (ROOT / "docs/python.md").read_text(encoding="utf-8"), re.DOTALL)
    assert len(blocks) >= 6
    monkeypatch.chdir(ROOT)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    names: dict[str, Any] = {}
    try:
        exec(compile("\n".join(blocks), "docs/python.md", "exec"), names)
    finally:
        if "shelf" in names:
            names["shelf"].close()
    printed = capsys.readouterr().out.splitlines()
    assert printed[:3] == ["examples/elephant.jpg (384,)", "README.md unsupported_media", "examples/accordion.jpg (384,)"]
    assert re.match(r"0\.\d\d  audio  examples/dog\.wav  None None$", printed[-3]), printed
