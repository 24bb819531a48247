from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from bindery.bundle import file_digest, find_bundle, open_bundle
from bindery.errors import BundleDamaged, BundleNotFound, BundleTooNew, UnknownModality


def _write(root: Path, **changes: Any) -> Path:
    (root / "image").mkdir(parents=True)
    graph = root / "image/model.onnx"
    graph.write_bytes(b"graph")
    manifest = {
        "format": 1,
        "name": "tiny",
        "version": "1",
        "space": "sha256:0",
        "dimension": 4,
        "licence": "none",
        "modalities": {
            "image": {
                "spec": {"kind": "image"},
                "artefacts": [
                    {
                        "path": "image/model.onnx",
                        "opset": 20,
                        "inputs": [{"name": "pixel_values", "dtype": "float32", "shape": ["batch", 3, 224, 224]}],
                        "max_batch": 4,
                        "parity": {"reference": "torch", "cosine_min": 1.0, "max_abs": 0.0, "samples": 1},
                    }
                ],
            }
        },
        "files": {"image/model.onnx": {"sha256": file_digest(graph), "bytes": 5}},
    }
    (root / "manifest.json").write_text(json.dumps(manifest | changes))
    return root


def test_a_whole_bundle_opens_and_is_identified_by_its_manifest(tmp_path: Path) -> None:
    bundle = open_bundle(_write(tmp_path / "a"))
    assert bundle.name == "tiny"
    assert bundle.modality("image").spec.kind == "image"
    assert bundle.digest == open_bundle(_write(tmp_path / "b")).digest
    assert bundle.digest != open_bundle(_write(tmp_path / "c", version="2")).digest


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda p: p.write_bytes(b"grapj"), "was changed"),
        (lambda p: p.write_bytes(b"gra"), "has 3 bytes; the manifest says 5"),
        (lambda p: p.unlink(), "is missing"),
    ],
    ids=["tampered", "truncated", "missing"],
)
def test_a_damaged_file_is_named(tmp_path: Path, damage: Any, message: str) -> None:
    root = _write(tmp_path / "b")
    damage(root / "image/model.onnx")
    with pytest.raises(BundleDamaged, match=message) as caught:
        open_bundle(root)
    assert "image/model.onnx" in caught.value.detail


def test_a_newer_format_is_refused_before_anything_else_is_read(tmp_path: Path) -> None:
    root = _write(tmp_path / "b", format=2, something_new=True)
    with pytest.raises(BundleTooNew, match=r"manifest\.json has format 2"):
        open_bundle(root)


@pytest.mark.parametrize(
    "changes",
    [
        {"files": {}},
        {"files": {"../secret": {"sha256": "0", "bytes": 1}}},
        {"files": {"/etc/passwd": {"sha256": "0", "bytes": 1}}},
        {"modalities": {"image": {"spec": {"kind": "smell"}, "artefacts": []}}},
        {"modalities": {"image": {"spec": {"kind": "image", "std": [0.1, -0.2, 0.3]}, "artefacts": []}}},
        {"unknown": 1},
    ],
)
def test_an_invalid_manifest_is_refused_with_its_name(tmp_path: Path, changes: dict[str, Any]) -> None:
    with pytest.raises(BundleDamaged, match=r"manifest\.json"):
        open_bundle(_write(tmp_path / "b", **changes))


@pytest.mark.parametrize("content", [b"", b"[]", b"{", b"\xff\xfe", b"null"])
def test_a_manifest_that_is_junk_is_refused_with_its_name(tmp_path: Path, content: bytes) -> None:
    root = _write(tmp_path / "b")
    (root / "manifest.json").write_bytes(content)
    with pytest.raises(BundleDamaged, match=r"manifest\.json"):
        open_bundle(root)


def test_a_file_that_leads_out_of_the_bundle_is_refused(tmp_path: Path) -> None:
    root = _write(tmp_path / "b")
    outside = tmp_path / "outside"
    outside.write_bytes(b"graph")
    (root / "image/model.onnx").unlink()
    (root / "image/model.onnx").symlink_to(outside)
    with pytest.raises(BundleDamaged, match="leads out"):
        open_bundle(root)


def test_bundles_are_found_by_directory_and_by_name(tmp_path: Path) -> None:
    root = _write(tmp_path / "mine")
    assert find_bundle(root) == root
    assert find_bundle("mine", [tmp_path]) == root
    with pytest.raises(BundleNotFound, match="nowhere"):
        find_bundle("nowhere", [tmp_path])
    with pytest.raises(BundleNotFound):
        find_bundle("../mine", [tmp_path / "mine"])


def test_an_unknown_modality_names_those_there_are(tmp_path: Path) -> None:
    bundle = open_bundle(_write(tmp_path / "b"))
    with pytest.raises(UnknownModality, match="it has: image"):
        bundle.modality("smell")
    with pytest.raises(UnknownModality, match="no text modality"):
        bundle.text_modality()
