"""How benchmarks' files stand on disk: the registry of layouts, and samples from them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from training.evaluation.boxes import box_samples
from training.evaluation.folders import folder_samples, scene_samples
from training.evaluation.manifests import manifest_samples
from training.evaluation.phrases import phrase_samples
from training.evaluation.samples import Sample
from training.evaluation.tables import table_samples
from training.evaluation.task import Task, TaskError

LAYOUTS: dict[str, Callable[[Path, Mapping[str, Any]], Iterator[Sample]]] = {
    "table": table_samples,
    "folders": folder_samples,
    "scenes": scene_samples,
    "boxes": box_samples,
    "manifest": manifest_samples,
    "phrases": phrase_samples,
}


def read_samples(task: Task, data: Path) -> list[Sample]:
    """All of the task's samples, in a fixed order. Raises `TaskError`, `ManifestError`."""
    if task.layout not in LAYOUTS:
        raise TaskError(f"{task.name}: no layout is named {task.layout!r}; there are {', '.join(LAYOUTS)}")
    try:
        samples = list(LAYOUTS[task.layout](data, task.where))
    except ValidationError as error:
        first = error.errors()[0]
        raise TaskError(f"{task.name}: where/{'/'.join(str(part) for part in first['loc'])}: {first['msg']}") from error
    if not samples:
        raise TaskError(f"{task.name}: no sample was found below {data}")
    return samples
