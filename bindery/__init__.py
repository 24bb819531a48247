"""bindery: text, image, video, audio, depth and thermal in one embedding space.

    import bindery
    model = bindery.load("starter")
    model.embed("audio", ["dog.wav"])                                # (1, d) float32, unit length
    model.classify("audio", "dog.wav", ["dog barking", "rain"])      # (1, 2) probabilities
    bindery.open_collection("archive").search(text="a dog barking")

Names are loaded when first used, so that `import bindery` costs nothing.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from bindery.decoded import Waveform
    from bindery.embedder import Embedder, load
    from bindery.errors import BinderyError
    from bindery.search import open_collection

__version__ = "0.1.0"
__all__ = ["BinderyError", "Embedder", "Waveform", "load", "open_collection"]

_HOMES = {
    "load": "bindery.embedder",
    "Embedder": "bindery.embedder",
    "Waveform": "bindery.decoded",
    "BinderyError": "bindery.errors",
    "open_collection": "bindery.search",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'bindery' has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *_HOMES])
