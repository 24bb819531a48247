"""Which errors which family of routes can answer with, for the OpenAPI page."""

from __future__ import annotations

from bindery import errors as e

TAKING_WORK = (e.Starting, e.Draining, e.EngineDown, e.QueueFull, e.StoreUnavailable, e.DeadlineExceeded)
JSON_ERRORS = (
    e.MalformedJson,
    e.InvalidParameter,
    e.TooManyBytes,
    e.UnsupportedMedia,
    e.BodyTimeout,
    e.Starting,
    e.EngineDown,
    e.StorageFull,  # long bodies are written to the temporary folder
)
MEDIA_ERRORS = (
    e.UnknownModality,
    e.UnknownModel,
    e.NotAcceptable,
    *JSON_ERRORS,
    e.MalformedMultipart,
    e.TooManyItems,
    e.TooManyPixels,
    e.TooLong,
    e.UnreadableMedia,
    e.EmptyMedia,
    e.NoVideoStream,
    e.NoAudioStream,
    e.AmbiguousDepth,
    e.DecoderKilled,
    e.UrlNotAllowed,
    e.UrlFetchFailed,
    *TAKING_WORK,
)
