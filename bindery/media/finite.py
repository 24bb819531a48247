"""Numbers from measuring files, made finite: a hole must not become a not-a-number in a vector."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray


def to_float32(values: NDArray[Any]) -> NDArray[np.float32]:
    """As float32; not-a-number, infinity and what float32 cannot hold become 0."""
    with np.errstate(invalid="ignore", over="ignore"):  # signalling NaNs and huge float64 values are expected here
        numbers = values.astype(np.float32)
    return np.asarray(np.nan_to_num(numbers, copy=False, nan=0.0, posinf=0.0, neginf=0.0), dtype=np.float32)
