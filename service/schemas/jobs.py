"""Bodies of `/v1/jobs`."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, Field


class ErrorsOfAJob(BaseModel):
    count: int
    examples: list[str] = Field(description="names of a few files")


class JobAnswer(BaseModel):
    id: str
    state: str = Field(description="queued, listing, running, paused, done, failed or cancelled")
    detail: str | None = Field(description="why it failed or paused")
    spec: dict[str, Any] = Field(description="what it was asked to do")
    listed: int = Field(description="files; done + skipped + failed + pending")
    done: int
    skipped: int = Field(description="were there with the same content")
    failed: int
    pending: int
    encoded: int = Field(description="of the done, those that went through a model")
    copied: int = Field(description="of the done, those whose bytes were in the collection under another name")
    pruned: int
    left_out: int = Field(description="files of no kind that the bundle takes, or of several")
    errors: dict[str, ErrorsOfAJob]
    created_at: float = Field(description="seconds since 1970")
    updated_at: float


class JobsAnswer(BaseModel):
    jobs: list[JobAnswer]
