from __future__ import annotations

from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner

from export.cli import app
from tests.export.packages import write_package, write_tokenizer

torch.set_num_threads(1)


@pytest.fixture(scope="session")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tokenizer(tmp_path_factory.mktemp("tokenizer"))


@pytest.fixture(scope="session")
def large_bundle(tmp_path_factory: pytest.TempPathFactory, tokenizer: Path) -> Path:
    """Packages of the Large family in three layouts, by the command line; `smooth` is `image` with one policy switched."""
    root = tmp_path_factory.mktemp("large")
    packages = [
        ("image", "Image", "safetensors"),
        ("audio", "Audio", "bin"),
        ("depth", "Depth", "sharded"),
        ("smooth", "Image", "safetensors"),
        ("video", "Video", "bin"),
    ]
    arguments = ["languagebind", "--tokenizer", str(tokenizer), "--out", str(root / "bundle")]
    arguments += ["--max-batch", "2", "--max-batch", "image=8", "--policy", "smooth.antialias=true"]
    for modality, package, layout in packages:
        write_package(root / package, package, layout=layout)  # type: ignore[arg-type]
        arguments += ["--checkpoint", f"{modality}={root / package}"]
    return _exported(arguments, root / "bundle")


@pytest.fixture(scope="session")
def huge_bundle(tmp_path_factory: pytest.TempPathFactory, tokenizer: Path) -> Path:
    root = tmp_path_factory.mktemp("huge")
    package = write_package(root / "package", "Video_Huge_V1.5_FT")
    arguments = ["languagebind", "--checkpoint", f"video={package}", "--tokenizer", str(tokenizer), "--max-batch", "2"]
    return _exported([*arguments, "--out", str(root / "bundle")], root / "bundle")


def _exported(arguments: list[str], out: Path) -> Path:
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 0, result.output
    return out
