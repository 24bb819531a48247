"""Bodies of `/v1/aliases`."""

from __future__ import annotations

from pydantic import BaseModel, Field

from service.schemas.embed import Strict


class AliasBody(Strict):
    collection: str = Field(description="the collection that the alias shall stand for")


class AliasAnswer(BaseModel):
    name: str
    collection: str


class AliasesAnswer(BaseModel):
    aliases: list[AliasAnswer]
