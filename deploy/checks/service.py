"""The service under check: what it says of itself, a sample for each of its modalities, and what must be removed in the end."""

from __future__ import annotations

import base64
import contextlib
import uuid
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import quote

from checks.client import Client, Failed, Part, expect


@dataclass(frozen=True)
class Sample:
    """One file, what its bytes are, and the options that its kind needs."""

    filename: str
    media_type: str


SAMPLES = {
    "image": Sample("elephant.jpg", "image/jpeg"),
    "audio": Sample("dog.wav", "audio/wav"),
    "video": Sample("kitchen.mp4", "video/mp4"),
    "depth": Sample("bathroom-depth.png", "image/png"),
    "thermal": Sample("cars-thermal.jpg", "image/jpeg"),
}
"""By kind. A bundle may have several modalities of one kind, and need not have all kinds."""


@dataclass
class Service:
    client: Client
    examples: Path
    model: str
    dimension: int
    kinds: dict[str, str]
    """modality name -> kind"""
    _made: list[str] = field(default_factory=list)

    @classmethod
    def ask(cls, client: Client, examples: Path) -> Service:
        for sample in SAMPLES.values():
            expect((examples / sample.filename).is_file(), f"{examples / sample.filename} is missing: name the folder by --examples")
        told = client.call("GET", "/v1/modalities").json()
        kinds = {entry["name"]: entry["kind"] for entry in told["modalities"]}
        expect("text" in kinds.values(), f"the bundle has no text modality: {kinds}")
        return cls(client, examples, told["model"], told["dimension"], kinds)

    @property
    def text(self) -> str:
        return next(name for name, kind in self.kinds.items() if kind == "text")

    @property
    def media(self) -> dict[str, str]:
        """The modalities that take files: name -> kind."""
        return {name: kind for name, kind in self.kinds.items() if kind != "text"}

    @property
    def a_medium(self) -> str:
        """One modality that takes files, the cheapest there is."""
        order = ["image", "thermal", "depth", "audio", "video"]
        expect(bool(self.media), "the bundle has no modality that takes files")
        return min(self.media, key=lambda name: order.index(self.media[name]))

    def data(self, modality: str) -> bytes:
        return (self.examples / SAMPLES[self.kinds[modality]].filename).read_bytes()

    def base64(self, modality: str) -> str:
        return base64.b64encode(self.data(modality)).decode()

    def media_type(self, modality: str) -> str:
        return SAMPLES[self.kinds[modality]].media_type

    def file(self, modality: str) -> Part:
        sample = SAMPLES[self.kinds[modality]]
        return Part("file", self.data(modality), sample.filename, sample.media_type)

    def will_make(self, path: str) -> str:
        """Delete ``path`` in the end, whatever happens; returns it."""
        self._made.append(path)
        return path

    def a_name(self) -> str:
        return f"smoke-{uuid.uuid4().hex[:12]}"

    def clean_up(self) -> None:
        for path in reversed(self._made):
            with contextlib.suppress(Failed):  # the service may be gone; the check has said so
                self.client.call("DELETE", path, status=(200, 204, 404))


def segments(*names: str) -> str:
    return "/".join(quote(name, safe="") for name in names)


def fields(**values: str | list[str]) -> Iterator[Part]:
    """Plain form fields; a list is a repeated field."""
    for name, value in values.items():
        for one in value if isinstance(value, list) else [value]:
            yield Part(name, one.encode())
