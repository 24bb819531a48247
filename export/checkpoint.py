"""Find a checkpoint and read its tensors: hub layout, local directory or hub id, one file or shards, pickle-free.

In: a directory or `org/name`. Out: raw names and tensors. It knows no model.
"""

from __future__ import annotations

import json
import re
import zipfile
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor

from export.errors import CheckpointError

TOKENIZER_FILES = ("vocab.json", "merges.txt", "tokenizer.json")
_WEIGHTS = ("model.safetensors", "model.safetensors.index.json", "pytorch_model.bin", "pytorch_model.bin.index.json")
_WANTED = [
    "config.json",
    "open_clip_config.json",
    "open_clip_pytorch_model.bin",
    "*.safetensors",
    "*.safetensors.index.json",
    "pytorch_model*.bin",
    "pytorch_model.bin.index.json",
    *TOKENIZER_FILES,
]
_INDEX = ".index.json"
_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*(@[\w./-]+)?")


def locate(checkpoint: str) -> Path:
    """The directory of a checkpoint. What is no directory but reads `org/name` or `org/name@revision` is fetched from the hub."""
    directory = Path(checkpoint)
    if directory.is_dir():
        return directory
    if _HUB_ID.fullmatch(checkpoint):
        return _fetch(checkpoint)
    raise CheckpointError(f"no checkpoint {checkpoint!r}: neither a directory nor a hub id of the form org/name")


def _fetch(hub_id: str) -> Path:
    try:
        from huggingface_hub import snapshot_download
    except ImportError as error:
        raise CheckpointError(f"{hub_id!r} is no directory, and fetching it needs the package huggingface_hub: {error}") from error
    name, _, revision = hub_id.partition("@")
    try:
        return Path(snapshot_download(name, revision=revision or None, allow_patterns=_WANTED))
    except Exception as error:  # the client raises its own, its HTTP library's and the system's errors; all mean: not fetched
        raise CheckpointError(
            f"{hub_id!r} is no directory here, and the hub did not give it ({error}); without a network, pass a directory laid out like it"
        ) from error


def weight_files(directory: Path) -> list[Path]:
    """The files that hold the tensors; safetensors stand over pickles, one file over shards."""
    index = _main_file(directory)
    return _shards(index) if index.name.endswith(_INDEX) else [index]


def read_tensors(directory: Path) -> dict[str, Tensor]:
    """Every tensor by its stored name, mapped from disk where the format allows. Raises `CheckpointError` naming the file."""
    tensors: dict[str, Tensor] = {}
    for path in weight_files(directory):
        for name, tensor in _read(path).items():
            if name in tensors:
                raise CheckpointError(f"{path} holds {name}, which another shard holds too")
            tensors[name] = tensor
    main = _main_file(directory)
    missing = sorted(_weight_map(main).keys() - tensors.keys()) if main.name.endswith(_INDEX) else []
    if missing:
        raise CheckpointError(f"{main} names tensors that no shard holds: {', '.join(missing)}")
    return tensors


def read_file(path: Path) -> dict[str, Tensor]:
    """The tensors of one file; those under `state_dict` where a trainer kept more beside them. Raises `CheckpointError` naming the file."""
    loaded = _loaded(path)
    kept = loaded.get("state_dict") if isinstance(loaded, dict) else None
    return _table(path, loaded if kept is None else kept)


def _main_file(directory: Path) -> Path:
    for name in _WEIGHTS:
        if (directory / name).is_file():
            return directory / name
    raise CheckpointError(f"{directory} has no weights; looked for {', '.join(_WEIGHTS)}")


def _read(path: Path) -> dict[str, Tensor]:
    return _table(path, _loaded(path))


def _table(path: Path, loaded: object) -> dict[str, Tensor]:
    if not isinstance(loaded, dict) or not all(isinstance(tensor, Tensor) for tensor in loaded.values()):
        raise CheckpointError(f"{path} holds no flat table of tensors")
    return loaded


def _loaded(path: Path) -> object:
    try:
        # weights_only: a checkpoint must not be able to run code. Old files that are no zip cannot be mapped.
        return (
            load_file(path)
            if path.suffix == ".safetensors"
            else torch.load(path, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(path))
        )
    except Exception as error:  # on junk torch's unpickler raises whatever its opcodes run into: KeyError, IndexError, struct.error ...
        reason = str(error).partition("\n")[0] or type(error).__name__
        raise CheckpointError(f"{path} cannot be read as plain weights: {reason}") from error


def _shards(index: Path) -> list[Path]:
    shards = [index.parent / name for name in dict.fromkeys(_weight_map(index).values())]
    for shard in shards:
        if shard.parent != index.parent or not shard.is_file():
            raise CheckpointError(f"{index} names {shard.name!r}, which is not beside it")
    return shards


def _weight_map(index: Path) -> dict[str, str]:
    try:
        weight_map = json.loads(index.read_bytes())["weight_map"]
    except (ValueError, KeyError, TypeError) as error:
        raise CheckpointError(f"{index} is no weight index: {error}") from error
    if not isinstance(weight_map, dict) or not weight_map or not all(isinstance(name, str) for name in weight_map.values()):
        raise CheckpointError(f"{index} is no weight index: weight_map must map names to files")
    return weight_map
