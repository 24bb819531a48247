from __future__ import annotations

import json
import logging
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnxruntime
import pytest

import bindery
from bindery.bundle import Bundle, find_bundle, open_bundle
from bindery.decoded import Tensors
from bindery.errors import BundleDamaged
from bindery.runtime import prepacked
from bindery.runtime.machine_cache import FACTS, MachineCache, graph_identity
from bindery.runtime.open import open_encoder
from bindery.runtime.prepacked import GRAPH, WEIGHTS, Prepacked


@pytest.fixture(scope="module")
def starter() -> Bundle:
    return open_bundle(find_bundle("starter"))


def audio(count: int = 3) -> Tensors:
    return {"pixel_values": np.random.default_rng(0).standard_normal((count, 10, 64, 96)).astype(np.float32)}


def ready(bundle: Bundle, cache: Path) -> Prepacked:
    return Prepacked(bundle, bundle.modality("audio").artefacts[0], cache)


def entries(cache: Path) -> list[Path]:
    return sorted((cache / "prepacked").iterdir())


def test_vectors_are_the_same_to_the_bit_when_made_and_when_found(starter: Bundle, tmp_path: Path) -> None:
    plain = open_encoder(starter, "audio", device="cpu", threads=1).encode(audio())
    first = open_encoder(starter, "audio", device="cpu", threads=1, cache_dir=tmp_path).encode(audio())
    (entry,) = entries(tmp_path)
    inodes = {path.name: path.stat().st_ino for path in entry.iterdir()}
    again = open_encoder(starter, "audio", device="cpu", threads=2, cache_dir=tmp_path).encode(audio())
    assert np.array_equal(plain, first)
    assert np.array_equal(plain, again)
    assert {path.name: path.stat().st_ino for path in entry.iterdir()} == inodes  # found, not made again
    assert inodes.keys() == {GRAPH, WEIGHTS, FACTS}


def test_each_graph_has_an_entry_and_texts_of_all_lengths_are_the_same(starter: Bundle, tmp_path: Path) -> None:
    text = ["a dog barking", "rain on a roof, at night, and nobody there to hear it"]
    plain = bindery.load("starter", threads=1).embed("text", text)
    assert np.array_equal(bindery.load("starter", threads=1, cache_dir=tmp_path).embed("text", text), plain)
    open_encoder(starter, "image", device="cpu", threads=1, cache_dir=tmp_path)
    assert len(entries(tmp_path)) == 2


@pytest.mark.parametrize("fact", ["version", "processor", "instructions"])
def test_an_entry_of_another_runtime_or_machine_is_not_found(
    starter: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fact: str
) -> None:
    here = ready(starter, tmp_path).path()
    if fact == "version":
        monkeypatch.setattr(onnxruntime, "__version__", "9.9")
    elif fact == "processor":
        monkeypatch.setattr(prepacked, "processor_name", lambda: "Another")
    else:
        monkeypatch.setattr(prepacked, "instructions", lambda: frozenset({"sse2"}))
    there = ready(starter, tmp_path).path()
    assert there is not None
    assert there != here


def test_an_entry_under_the_name_of_another_is_made_again(starter: Bundle, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = ready(starter, tmp_path).path()
    assert path is not None
    document = json.loads((path.parent / FACTS).read_text())
    document["facts"]["processor"] = "Another"
    (path.parent / FACTS).write_text(json.dumps(document))
    path.write_bytes(path.read_bytes()[::-1])  # the size stays: what is foreign must not be run
    with caplog.at_level(logging.WARNING):
        encoder = open_encoder(starter, "audio", device="cpu", threads=1, cache_dir=tmp_path)
    assert "made for another graph or machine" in caplog.text
    assert np.array_equal(encoder.encode(audio()), open_encoder(starter, "audio", device="cpu", threads=1).encode(audio()))


@pytest.mark.parametrize("damage", ["truncated", "missing", "no facts", "writable"])
def test_a_damaged_entry_is_made_again(starter: Bundle, tmp_path: Path, caplog: pytest.LogCaptureFixture, damage: str) -> None:
    path = ready(starter, tmp_path).path()
    assert path is not None
    match damage:
        case "truncated":
            os.truncate(path.parent / WEIGHTS, 100)
        case "missing":
            path.unlink()
        case "no facts":
            (path.parent / FACTS).write_text("[]")
        case "writable":
            path.chmod(0o666)
    with caplog.at_level(logging.WARNING):
        encoder = open_encoder(starter, "audio", device="cpu", threads=1, cache_dir=tmp_path)
    assert "is not used and made again" in caplog.text
    assert np.array_equal(encoder.encode(audio()), open_encoder(starter, "audio", device="cpu", threads=1).encode(audio()))
    assert path.stat().st_mode & 0o777 == 0o600


def test_an_entry_that_does_not_load_is_thrown_away_and_the_bundles_graph_serves(
    starter: Bundle, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = ready(starter, tmp_path).path()
    assert path is not None
    path.write_bytes(b"\xff" * path.stat().st_size)
    with caplog.at_level(logging.WARNING):
        encoder = open_encoder(starter, "audio", device="cpu", threads=1, cache_dir=tmp_path)
    assert "thrown away" in caplog.text
    assert np.array_equal(encoder.encode(audio()), open_encoder(starter, "audio", device="cpu", threads=1).encode(audio()))
    assert entries(tmp_path) == []


def test_a_folder_that_cannot_be_written_is_said_and_serving_goes_on(
    starter: Bundle, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "file").write_text("no folder")
    with caplog.at_level(logging.WARNING):
        encoder = open_encoder(starter, "audio", device="cpu", threads=1, cache_dir=tmp_path / "file")
    assert "could not be kept ready" in caplog.text
    assert encoder.encode(audio(1)).shape == (1, 384)


def test_a_graph_that_onnxruntime_saves_off_the_border_is_kept_only_when_another_way_is_found(
    starter: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    text = Prepacked(starter, starter.modality("text").artefacts[0], tmp_path)
    path = text.path()
    assert path is not None
    assert prepacked.aligned(path)
    text.discard()
    monkeypatch.setattr(prepacked, "_INLINE", prepacked._INLINE[:1])  # the first way: its table of scales has an odd size
    with caplog.at_level(logging.WARNING):
        assert text.path() is None
    assert "64-byte border" in caplog.text
    assert entries(tmp_path) == []


@pytest.mark.parametrize(
    ("child", "said"),
    [
        ("import os; os.kill(os.getpid(), 11)", "ended with -11"),
        (
            "import sys, numpy; found = numpy.load(sys.argv[3]); numpy.savez(sys.argv[4], **{n: numpy.ones((2, 384)) for n in '01'})",
            "gives other vectors",
        ),
    ],
)
def test_what_kills_a_process_or_gives_other_vectors_is_not_kept(
    starter: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, child: str, said: str
) -> None:
    monkeypatch.setattr(prepacked, "_CHILD", child)
    with caplog.at_level(logging.WARNING):
        encoder = open_encoder(starter, "audio", device="cpu", threads=1, cache_dir=tmp_path)
    assert said in caplog.text
    assert entries(tmp_path) == []
    assert encoder.encode(audio(1)).shape == (1, 384)


def test_another_graph_of_the_same_name_is_another_entry(starter: Bundle, tmp_path: Path) -> None:
    root = shutil.copytree(starter.root, tmp_path / "changed")
    document = json.loads((root / "manifest.json").read_text())
    document["files"]["towers/weights.bin"]["sha256"] = "0" * 64
    (root / "manifest.json").write_text(json.dumps(document))
    changed = open_bundle(root, checksums=False)
    artefact = starter.modality("audio").artefacts[0]
    assert graph_identity(changed, artefact) != graph_identity(starter, artefact)
    with pytest.raises(BundleDamaged, match="not listed"):
        graph_identity(starter, artefact.model_copy(update={"path": "towers/other.onnx"}))


def test_a_maker_that_fails_or_is_killed_leaves_no_entry(tmp_path: Path) -> None:
    cache = MachineCache(tmp_path, "sort")

    def fails(place: Path) -> None:
        (place / "half").write_text("half")
        raise OSError("no space")

    with pytest.raises(OSError, match="no space"):
        cache.make({"a": "b"}, fails)
    assert list((tmp_path / "sort").iterdir()) == []
    program = (
        "import os, sys; from pathlib import Path; from bindery.runtime.machine_cache import MachineCache\n"
        "MachineCache(Path(sys.argv[1]), 'sort').make({'a': 'b'}, lambda place: ((place / 'half').write_text('half'), os._exit(9)))"
    )
    assert subprocess.run([sys.executable, "-c", program, str(tmp_path)], check=False).returncode == 9
    assert cache.find({"a": "b"}) is None
    made = cache.make({"a": "b"}, lambda place: (place / "whole").write_text("whole") and None)
    assert cache.find({"a": "b"}) == made


def test_of_two_makers_the_first_ones_entry_stays(tmp_path: Path) -> None:
    cache = MachineCache(tmp_path, "sort")

    def second(place: Path) -> None:
        cache.make({"a": "b"}, lambda other: (other / "who").write_text("the first") and None)
        (place / "who").write_text("the second")

    made = cache.make({"a": "b"}, second)
    assert (made / "who").read_text() == "the first"
    assert [path.name for path in (tmp_path / "sort").iterdir()] == [made.name]
