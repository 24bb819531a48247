"""The first run of docs/training.md, as it stands there."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

DOCS = Path(__file__).parents[2] / "docs"
COMMANDS = {
    "bindery-train": "training.cli",
    "bindery-export": "export.cli",
    "bindery-eval": "training.evaluation.cli",
    "bindery": "bindery.cli.main",
}


@pytest.mark.slow
def test_the_first_run_can_be_pasted(tmp_path: Path) -> None:
    section = (DOCS / "training.md").read_text(encoding="utf-8").split("## A first run")[1].split("\n## ")[0]
    train, measure = re.findall(r"```bash\n(.*?)```", section, re.DOTALL)
    measure = measure[: measure.index("bindery serve")]  # the service has tests of its own
    script = re.sub(r"^python ", f"{sys.executable} ", train + measure, flags=re.MULTILINE)
    for command, module in COMMANDS.items():
        script = re.sub(rf"^{command} ", f"{sys.executable} -c 'from {module} import main; main()' ", script, flags=re.MULTILINE)
    done = subprocess.run(["bash", "-euc", script], cwd=tmp_path, capture_output=True, text=True, check=False, timeout=1200)
    assert done.returncode == 0, done.stderr
    best = max(re.findall(r"(red|green|blue)\D*([01]\.\d+)", done.stdout), key=lambda pair: float(pair[1]))
    assert best[0] == "red", done.stdout
    assert re.search(r"\| tiles \| tiles \| top-1 \| (0\.[89]|1\.0)", done.stdout), done.stdout
    assert (tmp_path / "runs" / "tiles" / "training.png").stat().st_size > 10_000
