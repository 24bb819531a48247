"""The options that several commands have, with the words of their help, and how they become settings and a model."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import typer

from bindery.errors import InvalidParameter

if TYPE_CHECKING:
    from pydantic import BaseModel

    from bindery.collections import Definition
    from bindery.embedder import Embedder
    from bindery.settings import Settings

M = TypeVar("M", bound="BaseModel")

Bundle = Annotated[str | None, typer.Option("--bundle", help="A bundle's name or directory [default: BINDERY_BUNDLE, or starter].")]
DataDir = Annotated[Path | None, typer.Option("--data-dir", help="Where collections live [default: BINDERY_DATA_DIR, or ./data].")]
Device = Annotated[str | None, typer.Option("--device", help="auto, cpu, cuda or tensorrt.")]
Precision = Annotated[str | None, typer.Option("--precision", help="exact, bf16, fp16 or int8: which graphs of the bundle to run.")]
Threads = Annotated[int | None, typer.Option("--threads", help="Threads of one graph run.")]
Options = Annotated[
    list[str] | None,
    typer.Option("--option", metavar="NAME=VALUE", help="An option of the modality, e.g. depth_unit=mm, start=2.5. Repeatable."),
]


def settings_of(**given: object) -> Settings:
    """Settings from the environment, with what was given on the command line over them. Raises `InvalidParameter`."""
    from pydantic import ValidationError
    from pydantic_settings import SettingsError

    from bindery.settings import Settings

    try:
        return Settings(**{name: value for name, value in given.items() if value is not None})  # type: ignore[arg-type]
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        name = ".".join(str(part) for part in first["loc"])
        shown = "" if name.startswith("keys") else f" (got {first['input']!r})"  # what stands there may be a key
        raise InvalidParameter(f"setting {name}: {first['msg']}{shown}") from error
    except SettingsError as error:
        raise InvalidParameter(f"the environment: {error}; lists and objects are written as JSON") from error


def validated(model: type[M], given: Mapping[str, object]) -> M:
    """What was given on the command line as ``model``. Raises `InvalidParameter` that names the option."""
    from pydantic import ValidationError

    try:
        return model.model_validate(given)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        raise InvalidParameter(f"{first['loc'][0]}: {first['msg']}") from error


def open_model(settings: Settings) -> Embedder:
    """Raises bundle errors."""
    from bindery.bundle import find_bundle, open_bundle
    from bindery.embedder import Embedder

    bundle = open_bundle(find_bundle(settings.bundle_names()[0], settings.bundle_places()))
    return Embedder(
        bundle,
        device=settings.device,
        precision=settings.precision,
        threads=settings.threads,
        limits=settings.limits,
        cache_dir=settings.cache_dir,
    )


def bundle_of(collection: Definition, settings: Settings) -> Settings:
    """The settings with the bundle that the collection was made with, where that is found by its name.

    Elsewhere the bundle of the settings stands; whether its space fits is checked when it is opened.
    """
    from bindery.bundle import find_bundle
    from bindery.errors import BundleNotFound

    try:
        find_bundle(collection.bundle, settings.bundle_places())
    except BundleNotFound:
        return settings
    return settings.model_copy(update={"bundle": collection.bundle})


def parse_pairs(pairs: Sequence[str] | None) -> dict[str, str]:
    """``NAME=VALUE`` options as a mapping."""
    parsed: dict[str, str] = {}
    for pair in pairs or ():
        name, equals, value = pair.partition("=")
        if not equals or not name:
            raise typer.BadParameter(f"{pair!r} is not NAME=VALUE")
        parsed[name] = value
    return parsed


def parse_json(text: str | None, option: str) -> Mapping[str, Any] | None:
    """A JSON object given as an option."""
    document = None if text is None else _document(text, option)
    if not isinstance(document, dict | None):
        raise typer.BadParameter(f"{option} must be a JSON object")
    return document


def parse_list(text: str | None, option: str) -> Sequence[Any] | None:
    """A JSON list given as an option."""
    document = None if text is None else _document(text, option)
    if not isinstance(document, list | None):
        raise typer.BadParameter(f"{option} must be a JSON list")
    return document


def _document(text: str, option: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise typer.BadParameter(f"{option} is not JSON: {error}") from error
