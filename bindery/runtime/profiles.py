"""The shapes that a TensorRT engine is built for. Outside of them it does not run, and in the middle (`opt`) it is fastest.

Buckets follow how the engine room batches: single items, full batches, short texts and long ones.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from bindery.bundle import Artefact
from bindery.spec import Spec, TextSpec

Shape = tuple[int, ...]

SHORT_TEXT = 16
"""Tokens of a usual caption or query."""
_USUAL_BATCH = 8


@dataclass(frozen=True, slots=True)
class Profile:
    """Least, best and largest shape of every input, by its name."""

    least: Mapping[str, Shape]
    best: Mapping[str, Shape]
    largest: Mapping[str, Shape]

    def holds(self, shapes: Mapping[str, Shape]) -> bool:
        return all(
            len(shape) == len(self.least[name])
            and all(low <= side <= high for low, side, high in zip(self.least[name], shape, self.largest[name], strict=True))
            for name, shape in shapes.items()
        )


def whole(artefact: Artefact, spec: Spec) -> Profile:
    """One profile for everything that the graph may be asked."""
    batch, tokens = artefact.max_batch, _tokens(spec)
    return _profile(artefact, (1, min(_USUAL_BATCH, batch), batch), (1, min(SHORT_TEXT, tokens), tokens))


def buckets(artefact: Artefact, spec: Spec) -> tuple[Profile, ...]:
    """Profiles from small to large; the first that holds a batch is its own. Together they hold what `whole` holds."""
    largest = artefact.max_batch
    batches = [(1, 1, 1)] + ([(2, min(_USUAL_BATCH, largest), largest)] if largest > 1 else [])
    tokens = _tokens(spec)
    lengths = [(1, min(SHORT_TEXT, tokens), min(SHORT_TEXT, tokens))]
    if tokens > SHORT_TEXT:
        lengths.append((SHORT_TEXT + 1, tokens, tokens))
    return tuple(
        _profile(artefact, batch, length) for length in (lengths if isinstance(spec, TextSpec) else lengths[:1]) for batch in batches
    )


def provider_shapes(profile: Profile) -> dict[str, str]:
    """The three options of ONNX Runtime's TensorRT provider, all or none: `pixel_values:1x3x224x224`, several with commas."""
    return {
        "trt_profile_min_shapes": _written(profile.least),
        "trt_profile_opt_shapes": _written(profile.best),
        "trt_profile_max_shapes": _written(profile.largest),
    }


def _tokens(spec: Spec) -> int:
    return spec.context_length if isinstance(spec, TextSpec) else 1


def _profile(artefact: Artefact, batch: Sequence[int], tokens: Sequence[int]) -> Profile:
    least, best, largest = (
        {one.name: (batch[level], *(side if isinstance(side, int) else tokens[level] for side in one.shape[1:])) for one in artefact.inputs}
        for level in range(3)
    )
    return Profile(least, best, largest)


def _written(shapes: Mapping[str, Shape]) -> str:
    return ",".join(f"{name}:{'x'.join(map(str, shape))}" for name, shape in shapes.items())
