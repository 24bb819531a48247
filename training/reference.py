"""Every key of a recipe, written from the models that check it: `python -m training.reference docs` writes docs/recipe.md."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from types import UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic import BaseModel
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from bindery.spec import TextSpec
from training.recipe import Recipe

FILE = "recipe.md"

_HEAD = """# A recipe's keys

Written by `python -m training.reference docs`; do not edit. `docs/training.md` says how they work together.
A key that is not here is an error. Paths are relative: manifests and teachers to `--media`, tower packages to `--towers`.
"""


def as_markdown() -> str:
    return "\n".join([_HEAD, *(line for table in _tables("", Recipe) for line in table)])


def _tables(name: str, model: type[BaseModel]) -> Iterator[list[str]]:
    """A model's own table, then those of the tables inside it."""
    lines = [_title(name, model), ""]
    if model.__doc__ and name:
        lines += [model.__doc__.strip().splitlines()[0], ""]
    lines += ["| key | value | default | |", "| --- | --- | --- | --- |"]
    inside: list[tuple[str, type[BaseModel]]] = []
    for key, field in model.model_fields.items():
        parts = _models(field.annotation)
        inside += [(f"{name}.{key}".lstrip("."), part) for part in parts]
        value = "table" if parts else _value(field.annotation)
        lines.append(f"| `{key}` | {value} | {_default(field)} | {field.description or ''} |".replace("  |", " |"))
    yield [*lines, ""]
    for below, part in inside:
        yield from _tables(below, part)


def _title(name: str, model: type[BaseModel]) -> str:
    if not name:
        return "## At the top"
    tags = [
        key for key in ("kind", "architecture") if key in model.model_fields and get_origin(model.model_fields[key].annotation) is Literal
    ]
    which = "".join(f', {tag} = "{get_args(model.model_fields[tag].annotation)[0]}"' for tag in tags)
    brackets = f"[[{name}]]" if name in {"losses", "tower.config.stages"} else f"[{name}]"
    return f"## `{brackets}`{which}"


def _models(annotation: Any) -> list[type[BaseModel]]:
    """The models that an annotation allows, through unions, tuples and `Annotated`."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [] if annotation is TextSpec else [annotation]  # texts are not trained
    if get_origin(annotation) in (Union, UnionType, Annotated, tuple):
        return list(dict.fromkeys(model for part in get_args(annotation) for model in _models(part)))
    return []


def _value(annotation: Any) -> str:
    origin, parts = get_origin(annotation), get_args(annotation)
    if origin is Literal:
        return " or ".join(f'`"{part}"`' if isinstance(part, str) else f"`{part}`" for part in parts)
    if origin in (Union, UnionType):
        return " or ".join(_value(part) for part in parts if part is not type(None))
    if origin is Annotated:
        return _value(parts[0])
    if origin is tuple:
        return f"list of {_value(parts[0])}" if parts[-1] is Ellipsis else f"{len(parts)} of {_value(parts[0])}"
    if origin is dict:
        return f"table of {_value(parts[1])}"
    return {str: "text", int: "whole number", float: "number", bool: "`true` or `false`"}.get(annotation, str(annotation))


def _default(field: FieldInfo) -> str:
    if field.is_required():
        return "required"
    value = field.get_default(call_default_factory=True)
    if value is None or value is PydanticUndefined or value == () or value == {}:
        return "none"
    if isinstance(value, BaseModel) or (isinstance(value, tuple) and isinstance(value[0], BaseModel)):
        return "see below"
    if isinstance(value, bool):
        return f"`{str(value).lower()}`"
    if isinstance(value, tuple):
        return f"`[{', '.join(_literal(part) for part in value)}]`"
    return f"`{_literal(value)}`"


def _literal(value: object) -> str:
    return f'"{value}"' if isinstance(value, str) else str(value)


if __name__ == "__main__":
    (Path(sys.argv[1]) / FILE).write_text(as_markdown(), encoding="utf-8")
