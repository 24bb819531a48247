"""The identity of a space: vectors compare when, and only when, their towers answer to the same text tower."""

from __future__ import annotations

import hashlib
import json

import numpy as np

from bindery.spec import TextSpec
from training.towers.tower import Tower


def space_of(tower: Tower, spec: TextSpec, tokenizer: str) -> str:
    """``sha256:…`` over the text tower's weights, its tokenizer and its spec.

    Taken from the tower and not from its graph, so that another exporter version, storage or place in the bundle makes
    no new space.
    """
    digest = hashlib.sha256()
    digest.update(_canonical(spec.model_dump(mode="json", exclude={"tokenizer"})))  # where the file lies does not matter
    digest.update(_canonical(json.loads(tokenizer)))
    for name, tensor in sorted(tower.state_dict().items()):
        array = np.ascontiguousarray(tensor.numpy())
        digest.update(_canonical([name, array.dtype.str, list(array.shape)]))
        digest.update(array.data)
    return f"sha256:{digest.hexdigest()}"


def _canonical(document: object) -> bytes:
    return json.dumps(document, sort_keys=True, separators=(",", ":")).encode()
