"""Bundles that know what their graphs answered at export: the engine asks them when it starts, and again while idle."""

from __future__ import annotations

import asyncio
import json
import time
from pathlib import Path

import numpy as np
import pytest

from bindery.bundle import Bundle, open_bundle
from bindery.engine.engine import Engine, EnginePolicy
from bindery.errors import BundleDiffers
from bindery.known_answer import TEXT, known_input
from bindery.limits import Limits
from bindery.prepare.tokens import TextTokenizer
from bindery.runtime.collate import collate
from bindery.runtime.open import open_encoder
from bindery.spec import TextSpec
from bindery.vectors import Vectors, normalize
from tests.engine.peers import Peers
from tests.toybundle import build_toy_bundle

POLICY = EnginePolicy(threads=1, decode_workers=1, canary_s=0.0)


def answer(bundle: Bundle, modality: str) -> Vectors:
    entry = bundle.modality(modality)
    words = TextTokenizer(bundle.path(entry.spec.tokenizer), entry.spec) if isinstance(entry.spec, TextSpec) else None
    return open_encoder(bundle, modality, threads=1).encode(collate([known_input(entry.artefacts[0].inputs, words)]))[0]


def knowing(root: Path, answers: dict[str, Vectors]) -> Bundle:
    path = root / "manifest.json"
    document = json.loads(path.read_text())
    for name, vector in answers.items():
        recipe = {"recipe": "text", "text": TEXT} if name == "text" else {"recipe": "stripes"}
        document["modalities"][name]["canary"] = {**recipe, "vector": vector.astype(float).tolist()}
    path.write_text(json.dumps(document))
    return open_bundle(root)


@pytest.fixture
def toy(tmp_path: Path) -> Bundle:
    return open_bundle(build_toy_bundle(tmp_path / "toy"))


async def test_a_bundle_whose_graphs_answer_as_at_export_starts(toy: Bundle) -> None:
    bundle = knowing(toy.root, {name: answer(toy, name) for name in toy.manifest.modalities})
    engine = Engine(bundle, Limits(), POLICY)
    await engine.start()
    try:
        assert engine.state == "ready"
        for _ in range(20):
            assert engine.trouble() is None
            await asyncio.sleep(0.01)
    finally:
        await engine.stop(5)


@pytest.mark.parametrize("modality", ["text", "audio"])
async def test_a_graph_that_answers_otherwise_refuses_to_start(toy: Bundle, modality: str) -> None:
    right = answer(toy, modality)
    bundle = knowing(toy.root, {modality: normalize(np.roll(right, 1)[None])[0]})
    engine = Engine(bundle, Limits(), POLICY)
    with pytest.raises(BundleDiffers, match=f"modality '{modality}' gives another vector.*cosine"):
        await engine.start()
    assert engine.state == "failed"
    await engine.stop(0)


async def test_a_graph_that_strays_while_serving_is_trouble_until_it_answers_again(toy: Bundle) -> None:
    peers = Peers("audio")
    peer = peers(toy, "audio", device="cpu", precision="exact", threads=1)
    inputs = known_input(toy.modality("audio").artefacts[0].inputs, None)
    bundle = knowing(toy.root, {"audio": peer.encode(collate([inputs]))[0]})
    engine = Engine(bundle, Limits(), POLICY, peers)
    await engine.start()
    try:
        peers["audio"].drift = 1.0
        until = time.monotonic() + 5
        while (trouble := engine.trouble()) is None:
            assert time.monotonic() < until
            await asyncio.sleep(0.01)
        assert "'audio'" in trouble
        peers["audio"].drift = 0.0
        while engine.trouble() is not None:
            assert time.monotonic() < until
            await asyncio.sleep(0.01)
    finally:
        await engine.stop(5)
