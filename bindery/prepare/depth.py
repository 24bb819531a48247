"""Depth map -> ``pixel_values`` (3, size, size) float32: metres clipped, divided by the greatest depth, three equal channels."""

from __future__ import annotations

import numpy as np

from bindery.decoded import Raster, Tensors
from bindery.prepare.pixels import still
from bindery.spec import DepthSpec


def prepare_depth(raster: Raster, spec: DepthSpec) -> Tensors:
    """Holes (0 m) become ``min_depth_m``; they mix with their neighbours in the resize, as in the reference."""
    metres = np.maximum(raster.values, np.float32(spec.min_depth_m))
    if spec.max_depth_m > 0:
        metres = np.minimum(metres, np.float32(spec.max_depth_m))
    top = np.float32(spec.max_depth_m) if spec.max_depth_m > 0 else metres.max()
    unit = metres / top if top > 0 else metres  # a map of holes with min_depth_m = 0 stays 0
    return still(unit[..., None], spec)
