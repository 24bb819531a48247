from __future__ import annotations

import json
import pickle
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch

from export.checkpoint import locate, read_tensors
from export.errors import CheckpointError
from tests.export.packages import parts, write_package


@pytest.mark.parametrize("layout", ["bin", "safetensors", "sharded"])
def test_every_layout_gives_the_same_tensors(tmp_path: Path, layout: Any) -> None:
    tensors = read_tensors(write_package(tmp_path, "Image", layout=layout))
    expected = parts("Image").tensors
    assert tensors.keys() == expected.keys()
    assert all(torch.equal(tensors[name], expected[name]) for name in expected)


def test_a_file_of_the_old_pickle_format_is_read_too(tmp_path: Path) -> None:
    torch.save({"a": torch.ones(2)}, tmp_path / "pytorch_model.bin", _use_new_zipfile_serialization=False)
    assert torch.equal(read_tensors(tmp_path)["a"], torch.ones(2))


class _Bomb:
    def __reduce__(self) -> tuple[Any, ...]:
        return (Path.touch, (Path("bomb"),))


def test_a_pickle_that_would_run_code_is_refused_and_runs_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "pytorch_model.bin").write_bytes(pickle.dumps({"a": _Bomb()}))
    with pytest.raises(CheckpointError, match=r"pytorch_model\.bin cannot be read as plain weights"):
        read_tensors(tmp_path)
    assert not (tmp_path / "bomb").exists()


@pytest.mark.parametrize("name", ["model.safetensors", "pytorch_model.bin"])
@pytest.mark.parametrize("content", [b"", b"junk" * 100])
def test_a_damaged_weight_file_is_named(tmp_path: Path, name: str, content: bytes) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(CheckpointError, match=name):
        read_tensors(tmp_path)


def test_a_directory_without_weights_says_what_was_looked_for(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"model\.safetensors.*pytorch_model\.bin"):
        read_tensors(tmp_path)


def _index(directory: Path, change: Any) -> None:
    path = directory / "pytorch_model.bin.index.json"
    document = json.loads(path.read_text())
    change(document["weight_map"])
    path.write_text(json.dumps(document))


def test_a_tensor_that_the_index_names_and_no_shard_holds_is_an_error(tmp_path: Path) -> None:
    write_package(tmp_path, "Image", layout="sharded")
    _index(tmp_path, lambda weight_map: weight_map.update(ghost="pytorch_model-00001-of-00002.bin"))
    with pytest.raises(CheckpointError, match="ghost"):
        read_tensors(tmp_path)


@pytest.mark.parametrize("shard", ["gone.bin", "../outside.bin", "/etc/passwd"])
def test_a_shard_that_is_missing_or_elsewhere_is_refused(tmp_path: Path, shard: str) -> None:
    directory = write_package(tmp_path / "package", "Image", layout="sharded")
    torch.save({}, tmp_path / "outside.bin")
    _index(directory, lambda weight_map: weight_map.update(ghost=shard))
    with pytest.raises(CheckpointError, match="not beside it"):
        read_tensors(directory)


def test_one_tensor_in_two_shards_is_an_error(tmp_path: Path) -> None:
    write_package(tmp_path, "Image", layout="sharded")
    first = torch.load(tmp_path / "pytorch_model-00001-of-00002.bin", weights_only=True)
    second = torch.load(tmp_path / "pytorch_model-00002-of-00002.bin", weights_only=True)
    torch.save({**second, **dict([next(iter(first.items()))])}, tmp_path / "pytorch_model-00002-of-00002.bin")
    with pytest.raises(CheckpointError, match="another shard holds too"):
        read_tensors(tmp_path)


def _hub(monkeypatch: pytest.MonkeyPatch, answer: Any) -> list[tuple[str, Any]]:
    calls: list[tuple[str, Any]] = []

    def snapshot_download(name: str, *, revision: str | None, allow_patterns: list[str]) -> str:
        calls.append((name, revision))
        assert "config.json" in allow_patterns
        if isinstance(answer, Exception):
            raise answer
        return str(answer)

    module = ModuleType("huggingface_hub")
    module.snapshot_download = snapshot_download  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "huggingface_hub", module)
    return calls


def test_a_hub_id_is_fetched(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = _hub(monkeypatch, tmp_path)
    assert locate("LanguageBind/LanguageBind_Image") == tmp_path
    assert locate("LanguageBind/LanguageBind_Image@abc") == tmp_path
    assert calls == [("LanguageBind/LanguageBind_Image", None), ("LanguageBind/LanguageBind_Image", "abc")]


def test_a_hub_that_cannot_be_reached_is_a_clear_error(monkeypatch: pytest.MonkeyPatch) -> None:
    _hub(monkeypatch, OSError("no route"))
    with pytest.raises(CheckpointError, match=r"LanguageBind/X.*no route.*pass a directory"):
        locate("LanguageBind/X")


def test_a_missing_hub_client_is_a_clear_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(CheckpointError, match="huggingface_hub"):
        locate("LanguageBind/X")


def test_a_directory_stands_over_a_hub_id(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = _hub(monkeypatch, OSError("not to be asked"))
    (tmp_path / "org" / "name").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    assert locate("org/name") == Path("org/name")
    assert calls == []


@pytest.mark.parametrize("checkpoint", ["nowhere", "/nowhere/at/all", "a/b/c", "../x/y"])
def test_what_is_neither_directory_nor_hub_id_is_an_error(checkpoint: str) -> None:
    with pytest.raises(CheckpointError, match="neither a directory nor a hub id"):
        locate(checkpoint)
