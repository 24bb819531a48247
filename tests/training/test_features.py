from __future__ import annotations

from pathlib import Path

import pytest
import torch

from training import features
from training.features import FeatureViews, load_views, save_views

VIEWS = FeatureViews((), torch.ones(2, 1, 1, 4), {"b": "broken"})


def test_views_come_back_as_they_were_kept(tmp_path: Path) -> None:
    save_views(tmp_path / "cache/views.safetensors", VIEWS)
    found = load_views(tmp_path / "cache/views.safetensors", [])
    assert torch.equal(found.features, VIEWS.features)
    assert found.skipped == VIEWS.skipped


def test_a_run_that_dies_while_it_keeps_them_leaves_nothing_taken_for_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def killed(_: object, path: Path, **__: object) -> None:
        path.write_bytes(b"half")
        raise KeyboardInterrupt

    monkeypatch.setattr(features, "save_file", killed)
    with pytest.raises(KeyboardInterrupt):
        save_views(tmp_path / "views.safetensors", VIEWS)
    assert not (tmp_path / "views.safetensors").exists()
