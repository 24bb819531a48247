"""Thermal picture, rendered or radiometric -> ``pixel_values`` (3, size, size) float32."""

from __future__ import annotations

from bindery.decoded import Picture, Raster, Tensors
from bindery.prepare.pixels import colours, still
from bindery.spec import ThermalSpec


def prepare_thermal(thermal: Picture | Raster, spec: ThermalSpec) -> Tensors:
    """A raster's values, 0..1 of the stated range, are shown as gray."""
    return still(thermal.values[..., None] if isinstance(thermal, Raster) else colours(thermal, spec), spec)
