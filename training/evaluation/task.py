"""A task: what is measured on which files, as TOML. A file holds one task, or a suite of them as `[[tasks]]`."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

BENCHMARKS = Path(__file__).parents[1] / "recipes" / "benchmarks"
STARTER = Path(__file__).parents[1] / "recipes" / "starter" / "tasks.toml"


class TaskError(ValueError):
    """There is no such task, its file is no task, or the data do not stand as it says. The message names the file."""


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Published(_Part):
    """One figure of the paper or its README, in the unit in which this task gives it (a share of 1, or a rank)."""

    model: str
    figure: str
    value: float


class Task(_Part):
    name: str
    modality: str = Field(description="what is named among labels, or found by captions")
    layout: str = Field(description="how the files stand: a name of `layouts.LAYOUTS`")
    where: dict[str, Any] = Field({}, description="the layout's own settings")
    figures: tuple[Literal["top", "map", "retrieval", "pairs", "paraphrase", "calibration"], ...] = ("top",)
    pair: str | None = Field(None, description="`pairs`: the modality that shows the same thing; found with no text between")
    names: dict[str, str] = Field({}, description="label → the words used for it; a label not named here is used as it stands")
    among: tuple[str, ...] = Field((), description="further labels to choose from, which no item has")
    templates: tuple[str, ...] = Field((), description="prompts around each label; none: the bundle's own")
    options: dict[str, dict[str, Any]] = Field({}, description="modality → what is said of each of its files, as `depth_scale`")
    published: tuple[Published, ...] = ()

    @model_validator(mode="after")
    def _whole(self) -> Task:
        if ("pairs" in self.figures) != (self.pair is not None):
            raise ValueError("figures has pairs exactly when pair names the other modality")
        return self


def known_tasks() -> list[str]:
    return sorted([*(path.stem for path in BENCHMARKS.glob("*.toml")), "starter"])


def read_tasks(name: str) -> list[Task]:
    """The tasks of a benchmark by its name, or of a TOML file by its path. Raises `TaskError`."""
    path = STARTER if name == "starter" else BENCHMARKS / f"{name}.toml"
    if not path.is_file():
        path = Path(name)
    if not path.is_file():
        raise TaskError(f"{name} is neither a file nor one of {', '.join(known_tasks())}")
    try:
        document = tomllib.loads(path.read_text(encoding="utf-8"))
        return [Task.model_validate(one) for one in document.get("tasks", [document])]
    except (tomllib.TOMLDecodeError, UnicodeError) as error:
        raise TaskError(f"{path} is no TOML: {error}") from error
    except ValidationError as error:
        first = error.errors()[0]
        raise TaskError(f"{path}: {'/'.join(str(part) for part in first['loc'])}: {first['msg']}") from error
