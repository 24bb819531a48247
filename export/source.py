"""What a bundle is made of: for each modality a spec, words, and a way to get its tower when its turn comes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from bindery.spec import AudioSpec, Spec, TextSpec, VideoSpec
from export.errors import ExportUsageError
from training.towers.tower import Tower


@dataclass(frozen=True, slots=True)
class TowerSource:
    """One modality to be. ``tower`` is called once, so that only one tower is in memory at a time."""

    modality: str
    spec: Spec
    tower: Callable[[], Tower]
    logit_scale: float | None
    prompts: tuple[str, ...]
    tokenizer: str | None = None
    """The text of the `tokenizer.json`, for text."""
    min_similarity: float | None = None


def check_fit(modality: str, spec: Spec, tower: Tower) -> None:
    """Raises `ExportUsageError` when the tensor that the spec makes is not the one that the tower takes."""
    if isinstance(spec, TextSpec):
        given = {"input_ids", "attention_mask"} if spec.attention_mask else {"input_ids"}
        taken = {i.name for i in tower.inputs}
        if given != taken:
            raise ExportUsageError(f"{modality}: the spec gives {sorted(given)}, the tower takes {sorted(taken)}")
        if tower.longest_text is not None and spec.context_length > tower.longest_text:
            longest = tower.longest_text
            raise ExportUsageError(
                f"{modality}: context_length {spec.context_length} is too long, the tower takes {longest} tokens at most"
            )
        return
    made = _picture(spec)
    wanted = tower.inputs[0].shape[1:]
    if made != wanted:
        raise ExportUsageError(
            f"{modality}: the spec makes {made} of a file, the tower takes {wanted}; the tower's size cannot be changed by a policy"
        )


def _picture(spec: Spec) -> tuple[int, ...]:
    match spec:
        case AudioSpec():
            return (spec.windows, spec.mel_bins, spec.frames)
        case VideoSpec():
            return (3, spec.frames, spec.size, spec.size)
        case TextSpec():
            raise AssertionError("a text is no picture. This is a bug.")
        case _:
            return (3, spec.size, spec.size)
