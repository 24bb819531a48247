"""The bundle: a directory with a manifest, graphs, tokenizer and checksums. The only thing that training and export hand to serving.

In: a directory. Out: a verified `Bundle`. It never loads a graph.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path, PurePosixPath
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from bindery.errors import BundleDamaged, BundleNotFound, BundleTooNew, UnknownModality
from bindery.spec import Spec

FORMAT = 1
MANIFEST = "manifest.json"
PACKAGED_BUNDLES = Path(__file__).parent / "bundles"

Precision = Literal["exact", "bf16", "fp16", "int8"]


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class TensorInfo(_Frozen):
    """One graph input; the first axis is the batch. A string in ``shape`` is a symbolic axis."""

    name: str
    dtype: Literal["float32", "int64"]
    shape: tuple[int | str, ...]


class Parity(_Frozen):
    """How far the graph is from its reference (the torch tower), worst over all samples and batch sizes."""

    reference: str
    cosine_min: float
    cosine_mean: float | None = None
    max_abs: float
    samples: int
    batches: tuple[int, ...] = ()
    inputs: str = Field("", description="what was measured: synthetic items, or real ones")
    accuracy: dict[str, float] = Field(
        default={}, description="top-1 of zero-shot labels on the named set, in the exact and in this precision"
    )
    measured_on: str = Field("", description="processor")


class Artefact(_Frozen):
    """One graph in one precision. ``weights`` says how they are stored; ``precision`` how they are computed with."""

    path: str
    precision: Precision = "exact"
    weights: Literal["float32", "float16", "int8"] = "float32"
    opset: int
    inputs: tuple[TensorInfo, ...]
    max_batch: int = Field(gt=0)
    parity: Parity
    built_with: dict[str, str] = {}


class KnownAnswer(_Frozen):
    """What the exact graph gave at export for an input that can be made again (`bindery.known_answer`)."""

    recipe: Literal["text", "stripes"]
    text: str = Field("", description="the input of the recipe `text`")
    vector: tuple[float, ...]

    @field_validator("vector")
    @classmethod
    def _is_a_direction(cls, vector: tuple[float, ...]) -> tuple[float, ...]:
        if not 0.99 < math.hypot(*vector) < 1.01:  # a NaN fails too
            raise ValueError("a known answer is a vector of unit length")
        return vector


class Modality(_Frozen):
    """Spec, graphs and words of one modality. ``logit_scale`` is the multiplier of cosines, already exponentiated.

    ``min_similarity``: a best label whose cosine is below it is probably not what the item is (see `bindery.zeroshot.unknown`).
    """

    spec: Spec
    artefacts: tuple[Artefact, ...] = Field(min_length=1)
    canary: KnownAnswer | None = Field(
        None, description="the engine asks for it at the start; bundles made before there were any have none"
    )
    logit_scale: float | None = Field(None, gt=0)
    min_similarity: float | None = Field(None, ge=-1, le=1, description="right labels are rarely less similar; None: not measured")
    prompts: tuple[str, ...] = Field(("{}",), description="templates with one `{}` for the label")

    @property
    def kind(self) -> str:
        return self.spec.kind

    def artefact(self, precision: str) -> Artefact | None:
        return next((artefact for artefact in self.artefacts if artefact.precision == precision), None)

    @model_validator(mode="after")
    def _prompts_have_a_place(self) -> Modality:
        for prompt in self.prompts:
            if prompt.count("{}") != 1:
                raise ValueError(f"prompt {prompt!r} needs exactly one {{}}")
        return self


class FileEntry(_Frozen):
    sha256: str
    bytes: int


class Manifest(_Frozen):
    format: int
    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,62}$")
    version: str
    space: str = Field(description="digest over the text tower: vectors compare only within one space")
    dimension: int = Field(gt=0)
    licence: str
    provenance: dict[str, Any] = {}
    modalities: dict[str, Modality]
    files: dict[str, FileEntry]

    @model_validator(mode="after")
    def _files_are_listed(self) -> Manifest:
        for path in self.files:
            pure = PurePosixPath(path)
            if pure.is_absolute() or ".." in pure.parts or "\\" in path or path != str(pure):
                raise ValueError(f"file {path!r} must be a plain relative path")
        for name, modality in self.modalities.items():
            canary = modality.canary
            if canary is not None and len(canary.vector) != self.dimension:
                raise ValueError(f"the canary of modality {name!r} has {len(canary.vector)} values, not {self.dimension}")
            if canary is not None and (canary.recipe == "text") != (modality.kind == "text"):
                raise ValueError(f"the canary of modality {name!r} has recipe {canary.recipe!r}, which is not for kind {modality.kind}")
            wanted = [a.path for a in modality.artefacts]
            if modality.spec.kind == "text":
                wanted.append(modality.spec.tokenizer)
            for path in wanted:
                if path not in self.files:
                    raise ValueError(f"modality {name!r} names {path!r}, which `files` does not list")
        return self


class Bundle:
    """A bundle whose every file was found as the manifest says."""

    def __init__(self, root: Path, manifest: Manifest, digest: str) -> None:
        self.root = root
        self.manifest = manifest
        self.digest = digest
        """sha256 of the manifest: with the checksums in it, the identity of everything in the bundle."""

    @property
    def name(self) -> str:
        return self.manifest.name

    def modality(self, name: str) -> Modality:
        try:
            return self.manifest.modalities[name]
        except KeyError:
            known = ", ".join(sorted(self.manifest.modalities))
            raise UnknownModality(f"bundle {self.name!r} has no modality {name!r}; it has: {known}") from None

    def text_modality(self) -> str:
        """The name of the modality that language goes through (the bond of the space)."""
        for name, modality in self.manifest.modalities.items():
            if modality.spec.kind == "text":
                return name
        raise UnknownModality(f"bundle {self.name!r} has no text modality, so labels and queries in words cannot be embedded")

    def path(self, relative: str) -> Path:
        return self.root / relative


def find_bundle(name_or_directory: str | Path, search: Iterable[Path] = ()) -> Path:
    """The directory of a bundle given by path or by name (looked up in ``search``, then among the packaged ones)."""
    direct = Path(name_or_directory)
    if (direct / MANIFEST).is_file():
        return direct
    places = [*search, PACKAGED_BUNDLES]
    if len(direct.parts) == 1:
        for place in places:
            if (place / direct / MANIFEST).is_file():
                return place / direct
    looked = ", ".join(str(p) for p in places)
    raise BundleNotFound(f"no bundle {str(name_or_directory)!r}: neither a directory with a {MANIFEST} nor a name in {looked}")


def open_bundle(directory: str | Path, *, checksums: bool = True) -> Bundle:
    """Read the manifest and verify every file it lists.

    ``checksums=False`` checks presence and size only. Raises `BundleNotFound`, `BundleTooNew`, `BundleDamaged`;
    each names the file.
    """
    root = Path(directory)
    path = root / MANIFEST
    try:
        raw = path.read_bytes()
    except OSError as error:
        raise BundleNotFound(f"{path}: {error.strerror or error}") from error
    manifest = _parse(path, raw)
    _verify(root, manifest, checksums)
    return Bundle(root, manifest, hashlib.sha256(raw).hexdigest())


def _parse(path: Path, raw: bytes) -> Manifest:
    try:
        document = json.loads(raw)
    except ValueError as error:
        raise BundleDamaged(f"{path} is not JSON: {error}") from error
    written = document.get("format") if isinstance(document, dict) else None
    if isinstance(written, int) and written > FORMAT:
        raise BundleTooNew(f"{path} has format {written}; this bindery reads up to {FORMAT}. Upgrade bindery, or export the bundle again")
    try:
        return Manifest.model_validate(document)
    except ValidationError as error:
        first = error.errors()[0]
        where = "/".join(str(x) for x in first["loc"]) or "/"
        raise BundleDamaged(f"{path} is not a valid manifest: {where}: {first['msg']}") from error


def _verify(root: Path, manifest: Manifest, checksums: bool) -> None:
    inside = root.resolve()
    for relative, entry in manifest.files.items():
        path = root / relative
        if not path.is_file():
            raise BundleDamaged(f"{path} is missing")
        if not path.resolve().is_relative_to(inside):
            raise BundleDamaged(f"{path} leads out of the bundle")
        size = path.stat().st_size
        if size != entry.bytes:
            raise BundleDamaged(f"{path} has {size} bytes; the manifest says {entry.bytes}")
    if not checksums:
        return
    with ThreadPoolExecutor(max_workers=4) as pool:
        digests = pool.map(lambda relative: file_digest(root / relative), manifest.files)
        for (relative, entry), digest in zip(manifest.files.items(), digests, strict=True):
            if digest != entry.sha256:
                raise BundleDamaged(f"{root / relative} was changed: its sha256 is {digest[:12]}…, the manifest says {entry.sha256[:12]}…")


def file_digest(path: Path) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
