"""Picture -> ``pixel_values`` (3, size, size) float32."""

from __future__ import annotations

from bindery.decoded import Picture, Tensors
from bindery.prepare.pixels import colours, still
from bindery.spec import ImageSpec


def prepare_image(picture: Picture, spec: ImageSpec) -> Tensors:
    return still(colours(picture, spec), spec)
