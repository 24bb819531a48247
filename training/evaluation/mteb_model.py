"""A bundle as a model of `mteb`, so that its text, image, audio and video tasks run on it; where that package is installed.

import mteb
from training.evaluation.mteb_model import MtebBundle
mteb.evaluate(MtebBundle("starter"), mteb.get_tasks(tasks=["ESC50_Zeroshot"]))
"""

from __future__ import annotations

import io
from collections.abc import Callable, Iterable, Mapping
from fractions import Fraction
from typing import TYPE_CHECKING, Any

import av
import numpy as np
import soundfile
from numpy.typing import NDArray

from bindery.embedder import Embedder, load
from bindery.media.source import Source
from bindery.vectors import Vectors, normalize

if TYPE_CHECKING:
    from mteb.models import ModelMeta

_COLUMNS = ("text", "image", "audio", "video")
"""mteb's words for what a batch holds, which are the bundle's modalities too."""
_RATE = 48_000
"""Hz that mteb is asked to give sounds in; the bundle's own rate is reached from there as from any file."""
_FRAMES = 32
"""Frames a video that mteb decodes; the bundle's spec takes its own number of these."""


class MtebBundle:
    """mteb's encoder protocol over an `Embedder`. A row with several modalities gets the mean of their vectors."""

    def __init__(self, model_name: str = "starter", revision: str | None = None, *, device: str | None = None, **_: Any) -> None:
        self.embedder: Embedder = load(model_name, device="cuda" if device == "cuda" else "cpu")
        self._revision = revision

    def encode(
        self,
        inputs: Iterable[Mapping[str, Any]],
        *,
        task_metadata: Any = None,
        hf_split: str = "",
        hf_subset: str = "",
        prompt_type: Any = None,
        **_: Any,
    ) -> Vectors:
        """``(n, d)`` float32 unit rows for all rows of all batches, in order. Raises the first file's error."""
        del task_metadata, hf_split, hf_subset, prompt_type  # a bundle treats every task alike
        _ask_for_frames(inputs)
        batches = [self._batch(batch) for batch in inputs]
        return np.concatenate(batches) if batches else np.empty((0, self.embedder.dimension), dtype=np.float32)

    def similarity(self, embeddings1: Any, embeddings2: Any) -> Any:
        """Cosines ``(n, m)``."""
        return _torch(embeddings1) @ _torch(embeddings2).T

    def similarity_pairwise(self, embeddings1: Any, embeddings2: Any) -> Any:
        """Cosines ``(n,)`` of rows with rows."""
        return (_torch(embeddings1) * _torch(embeddings2)).sum(dim=-1)

    @property
    def mteb_model_meta(self) -> ModelMeta:
        from mteb.models import ModelMeta

        bundle = self.embedder.bundle
        return ModelMeta.create_empty(
            {
                "name": f"bindery/{bundle.name}",
                "revision": self._revision or bundle.manifest.version,
                "embed_dim": self.embedder.dimension,
                "modalities": [name for name in _COLUMNS if name in self.embedder.modalities],
                "similarity_fn_name": "cosine",
            }
        )

    def _batch(self, batch: Mapping[str, Any]) -> Vectors:
        parts = [
            self.embedder.embed(modality, [_MAKERS[modality](value) for value in batch[modality]])
            for modality in _COLUMNS
            if modality in batch and modality in self.embedder.modalities
        ]
        if not parts:
            raise ValueError(f"a batch holds {', '.join(batch)}; the bundle takes {', '.join(self.embedder.modalities)}")
        return parts[0] if len(parts) == 1 else normalize(np.mean(parts, axis=0))


def _ask_for_frames(inputs: Any) -> None:
    """mteb hands over open decoders, unless its loader is given a collator that reads them."""
    features = getattr(getattr(inputs, "dataset", None), "features", {})
    if "video" in features or "audio" in features:
        from mteb.models.modality_collators import AudioCollator, VideoCollator

        video = VideoCollator(target_sampling_rate=_RATE, num_frames=_FRAMES)
        inputs.collate_fn = video if "video" in features else AudioCollator(target_sampling_rate=_RATE)


def _picture(value: Any) -> Any:
    return value.convert("RGB") if hasattr(value, "convert") and value.mode not in {"RGB", "RGBA", "L", "LA"} else value


def _sound(value: Mapping[str, Any]) -> Source:
    stream = io.BytesIO()
    samples = np.atleast_2d(np.asarray(value["array"], dtype=np.float32)).T  # (channels, samples) or (samples,) -> (samples, channels)
    soundfile.write(stream, samples, int(value["sampling_rate"]), format="WAV", subtype="FLOAT")
    return Source.of(stream.getvalue(), name="sound.wav")


def _clip(value: Any) -> Source:
    """``(frames, 3, height, width)`` uint8 as a lossless file, so that it walks the same way as every other video."""
    frames: NDArray[np.uint8] = np.asarray(value, dtype=np.uint8).transpose(0, 2, 3, 1)
    stream = io.BytesIO()
    with av.open(stream, "w", format="matroska") as container:
        track = container.add_stream("ffv1", rate=Fraction(8))
        track.width, track.height, track.pix_fmt = frames.shape[2], frames.shape[1], "bgr0"
        for frame in frames:
            container.mux(track.encode(av.VideoFrame.from_ndarray(np.ascontiguousarray(frame), format="rgb24")))
        container.mux(track.encode())
    return Source.of(stream.getvalue(), name="clip.mkv")


def _torch(vectors: Any) -> Any:
    import torch

    return torch.atleast_2d(torch.as_tensor(vectors))


_MAKERS: dict[str, Callable[[Any], Any]] = {"text": str, "image": _picture, "audio": _sound, "video": _clip}
