"""Encoders for tests: peers of `tests/fakeencoder.py` that are slow, stuck, dying or drifting. Not patches: the engine opens them."""

from __future__ import annotations

import threading
import time
from pathlib import Path

import numpy as np

from bindery.bundle import Bundle, Precision
from bindery.decoded import Tensors
from bindery.runtime.encoder import Encoder
from bindery.runtime.open import Device, open_encoder
from bindery.vectors import Vectors, normalize
from tests.fakeencoder import FakeEncoder


class Crash(BaseException):
    """What no one foresees: neither an `Exception` nor the end of the process."""


class Peer(FakeEncoder):
    """Behaves until told otherwise."""

    def __init__(self, input_names: tuple[str, ...]) -> None:
        super().__init__(dimension=8, input_names=input_names)
        self.delay_s = 0.0
        self.open = threading.Event()
        self.open.set()
        self.entered = threading.Event()
        self.crashes = 0
        self.drift = 0.0
        self.rows_each = 1

    def encode(self, tensors: Tensors) -> Vectors:
        self.entered.set()
        assert self.open.wait(20)
        time.sleep(self.delay_s)
        if self.crashes:
            self.crashes -= 1
            raise Crash
        vectors = np.repeat(super().encode(tensors), self.rows_each, axis=0)
        return normalize(vectors + np.float32(self.drift)) if self.drift else vectors


class Peers:
    """Opens a `Peer` for the named modalities and the real graph for the others."""

    def __init__(self, *modalities: str, rows_each: int = 1) -> None:
        self.by_name: dict[str, Peer] = {}
        self._rows_each = rows_each
        self._modalities = modalities

    def __call__(
        self,
        bundle: Bundle,
        modality: str,
        *,
        device: Device,
        precision: Precision,
        threads: int | None,
        cache_dir: Path | None = None,
    ) -> Encoder:
        if modality not in self._modalities:
            return open_encoder(bundle, modality, device=device, precision=precision, threads=threads, cache_dir=cache_dir)
        artefact = bundle.modality(modality).artefacts[0]
        peer = self.by_name[modality] = Peer(tuple(one.name for one in artefact.inputs))
        peer.rows_each = self._rows_each
        return peer

    def __getitem__(self, modality: str) -> Peer:
        return self.by_name[modality]
