"""The environment variables that there are, told by the settings themselves."""

from __future__ import annotations

from collections.abc import Iterator

from pydantic import BaseModel

from bindery.settings import Settings


def variables(model: type[BaseModel], prefix: str = "BINDERY_") -> Iterator[tuple[str, object]]:
    """Every environment variable and its default, nested ones by `__`."""
    for name, field in model.model_fields.items():
        default = field.get_default(call_default_factory=True)
        if isinstance(default, BaseModel):
            yield from variables(type(default), f"{prefix}{name.upper()}__")
        else:
            yield f"{prefix}{name.upper()}", default


VARIABLES = dict(variables(Settings))
