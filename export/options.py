"""The options that every command has which writes a bundle: said once, and turned into a `BundleOrder` once."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, cast, get_args, get_type_hints

import typer

from export.errors import ExportUsageError
from export.source import TowerSource
from export.weights import Storage
from export.write_bundle import BundleOrder


@dataclass(frozen=True, slots=True)
class BundleOptions:
    """As they were given; each field is an option of the command line."""

    policy: Annotated[list[str] | None, typer.Option(help="MODALITY.FIELD=VALUE: change one field of a spec.", metavar="POLICY")] = None
    weights: Annotated[list[str] | None, typer.Option(help="MODALITY=float32|float16|int8: how weights are stored.", metavar="STORAGE")] = (
        None
    )
    max_batch: Annotated[list[str] | None, typer.Option(help="N, or MODALITY=N: the largest batch of a graph.", metavar="N")] = None
    min_cosine: Annotated[float | None, typer.Option(help="Parity floor: least cosine of torch and graph.", min=-1, max=1)] = None
    max_abs: Annotated[float | None, typer.Option(help="Parity floor: most that a component may differ.", min=0)] = None
    samples: Annotated[
        list[str] | None,
        typer.Option(help="MODALITY=FOLDER (or a file of texts): measure parity on these, not on noise.", metavar="MODALITY=PATH"),
    ] = None
    card: Annotated[
        Path | None, typer.Option(help="Model card, Markdown; written from the manifest when absent.", exists=True, dir_okay=False)
    ] = None

    def order(self, sources: Sequence[TowerSource], **said: Any) -> BundleOrder:
        """For these ``sources``; ``said``: the order's other fields. Raises `ExportUsageError`."""
        said.setdefault("card", text_of(self.card))
        return BundleOrder(
            weights=_storages(self.weights or []),
            max_batch=_batches(self.max_batch or [], sources),
            min_cosine=self.min_cosine,
            max_abs=self.max_abs,
            samples=_places(self.samples or [], sources),
            **said,
        )


def with_bundle_options(command: Callable[..., None]) -> Callable[..., None]:
    """A command with a parameter ``options: BundleOptions`` as typer sees it: with an option for each field in its place."""
    hints = get_type_hints(command, include_extras=True)
    own = [
        parameter.replace(annotation=hints[name], kind=inspect.Parameter.KEYWORD_ONLY)
        for name, parameter in inspect.signature(command).parameters.items()
        if name != "options"
    ]
    fields = get_type_hints(BundleOptions, include_extras=True)
    shared = [
        inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=annotation) for name, annotation in fields.items()
    ]

    def run(**given: Any) -> None:
        options = BundleOptions(**{name: given.pop(name) for name in fields})
        command(**given, options=options)

    run.__name__, run.__doc__ = command.__name__, command.__doc__
    run.__signature__ = inspect.Signature([*own, *shared])  # type: ignore[attr-defined]
    run.__annotations__ = {parameter.name: parameter.annotation for parameter in (*own, *shared)}
    return run


def pairs(option: str, values: Sequence[str]) -> dict[str, str]:
    """MODALITY=VALUE, each modality once. Raises `ExportUsageError`."""
    found: dict[str, str] = {}
    for value in values:
        key, equals, text = value.partition("=")
        if not (key and equals and text):
            raise ExportUsageError(f"{option} {value!r} is not MODALITY=VALUE")
        if key in found:
            raise ExportUsageError(f"{option} names {key!r} twice")
        found[key] = text
    return found


def text_of(path: Path | None) -> str | None:
    return None if path is None else path.read_text(encoding="utf-8")


def _storages(values: Sequence[str]) -> dict[str, Storage]:
    stored = pairs("--weights", values)
    for modality, storage in stored.items():
        if storage not in get_args(Storage):
            raise ExportUsageError(f"--weights {modality}={storage}: use one of {', '.join(get_args(Storage))}")
    return cast("dict[str, Storage]", stored)


def _batches(values: Sequence[str], sources: Sequence[TowerSource]) -> dict[str, int]:
    everywhere = [value for value in values if "=" not in value]
    sizes = {source.modality: value for source in sources for value in everywhere}
    sizes |= pairs("--max-batch", [value for value in values if "=" in value])
    for modality, size in sizes.items():
        if not (size.isascii() and size.isdigit() and 1 <= int(size) <= 4096):
            raise ExportUsageError(f"--max-batch of {modality} is {size!r}; use 1 to 4096")
    return {modality: int(size) for modality, size in sizes.items()}


def _places(values: Sequence[str], sources: Sequence[TowerSource]) -> dict[str, Path]:
    kinds = {source.modality: source.spec.kind for source in sources}
    places = {modality: Path(text) for modality, text in pairs("--samples", values).items()}
    for modality, place in places.items():
        if not (place.is_file() if kinds.get(modality) == "text" else place.is_dir()):
            raise ExportUsageError(f"--samples {modality}={place}: give a file with one text a line for text, a folder of files for media")
    return places
