"""The one table of errors: what went wrong, whose fault it is, and whether to try again.

    BinderyError
    ├── BadRequest 400         MalformedJson · MalformedMultipart · InvalidHeader
    ├── Unauthorized 401       MissingKey · InvalidKey · Forbidden 403
    ├── NotFound 404           UnknownModality · UnknownModel · UnknownCollection · UnknownItem · UnknownAlias · UnknownLabelSet ·
    │                          UnknownSnapshot · UnknownPath
    ├── MethodNotAllowed 405   NotAcceptable 406 · UnsupportedMedia 415 · BodyTimeout 408
    ├── Conflict 409           SpaceMismatch · AlreadyExists · DefaultModel · ModelsFull
    ├── TooLarge 413           TooManyBytes · TooManyItems · TooManyPixels · TooLong
    ├── Unprocessable 422      InvalidParameter · UnreadableMedia · NoVideoStream · NoAudioStream · EmptyMedia ·
    │                          AmbiguousDepth · InvalidFilter · DimensionMismatch · DecoderKilled · PoisonFile · SnapshotDamaged ·
    │                          NotOffered · UrlNotAllowed · UrlFetchFailed · ModelNotLoaded
    ├── TooManyRequests 429    RateLimited · TooManyInflight
    ├── ServerFault            InternalError · CatalogDamaged · CatalogTooNew 500 · DeadlineExceeded 504
    │                          QueueFull · Starting · Draining · EngineDown · StorageFull · SourceUnavailable · StoreUnavailable ·
    │                          ClusterUnavailable 503
    └── BundleError 500        BundleNotFound · BundleDamaged · BundleTooNew · DeviceUnavailable

Each class is one row: ``code`` (stable, for machines), ``status`` (HTTP), ``title``, ``retryable``.
Nothing here imports anything of the project, so every room may raise these.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import ClassVar


class BinderyError(Exception):
    """Base of every error that a caller may see. ``detail`` says what was wrong and what to do."""

    code: ClassVar[str] = "internal"
    status: ClassVar[int] = 500
    title: ClassVar[str] = "Internal error"
    retryable: ClassVar[bool] = False

    def __init__(self, detail: str, *, pointer: str | None = None, retry_after_ms: int | None = None) -> None:
        super().__init__(detail)
        self.detail = detail
        self.pointer = pointer
        self.retry_after_ms = retry_after_ms

    def __reduce__(self) -> tuple[object, ...]:
        # Errors cross from decoder processes to the engine: keep the keyword fields when pickled.
        return (_rebuild, (type(self), self.detail, self.pointer, self.retry_after_ms))


def _rebuild(cls: type[BinderyError], detail: str, pointer: str | None, retry_after_ms: int | None) -> BinderyError:
    return cls(detail, pointer=pointer, retry_after_ms=retry_after_ms)


class BadRequest(BinderyError):
    code, status, title = "bad_request", 400, "The request cannot be parsed"


class MalformedJson(BadRequest):
    code, title = "malformed_json", "The body is not valid JSON"


class MalformedMultipart(BadRequest):
    code, title = "malformed_multipart", "The body is not valid multipart/form-data"


class InvalidHeader(BadRequest):
    code, title = "invalid_header", "A header has an invalid value"


class Unauthorized(BinderyError):
    code, status, title = "unauthorized", 401, "Who asks is not known"


class MissingKey(Unauthorized):
    code, title = "missing_key", "A key is needed"


class InvalidKey(Unauthorized):
    code, title = "invalid_key", "The key is not valid"


class Forbidden(BinderyError):
    code, status, title = "forbidden", 403, "The key does not allow this"


class NotFound(BinderyError):
    code, status, title = "not_found", 404, "Nothing is here"


class UnknownModality(NotFound):
    code, title = "unknown_modality", "The bundle has no such modality"


class UnknownModel(NotFound):
    code, title = "unknown_model", "No such model is loaded"


class UnknownCollection(NotFound):
    code, title = "unknown_collection", "No such collection"


class UnknownItem(NotFound):
    code, title = "unknown_item", "No such item in the collection"


class UnknownAlias(NotFound):
    code, title = "unknown_alias", "No such alias"


class UnknownSnapshot(NotFound):
    code, title = "unknown_snapshot", "No such snapshot"


class UnknownLabelSet(NotFound):
    code, title = "unknown_label_set", "No such label set"


class UnknownJob(NotFound):
    code, title = "unknown_job", "No such job"


class UnknownPath(NotFound):
    code, title = "unknown_path", "No such address in this API"


class MethodNotAllowed(BinderyError):
    code, status, title = "method_not_allowed", 405, "This address does not take this method"


class NotAcceptable(BinderyError):
    code, status, title = "not_acceptable", 406, "No acceptable representation"


class BodyTimeout(BinderyError):
    code, status, title, retryable = "body_timeout", 408, "The body arrived too slowly", True


class Conflict(BinderyError):
    code, status, title = "conflict", 409, "The request conflicts with the present state"


class SpaceMismatch(Conflict):
    code, title = "space_mismatch", "Vectors of different spaces cannot be compared"


class AlreadyExists(Conflict):
    code, title = "already_exists", "It exists already"


class JobState(Conflict):
    code, title = "job_state", "The job is in a state that does not allow this"


class DefaultModel(Conflict):
    code, title = "default_model", "The default model cannot be unloaded"


class ModelsFull(Conflict):
    code, title = "models_full", "The loaded models leave no memory for it"


class TooLarge(BinderyError):
    code, status, title = "too_large", 413, "Larger than this server takes"


class TooManyBytes(TooLarge):
    code, title = "too_many_bytes", "Too many bytes"


class TooManyItems(TooLarge):
    code, title = "too_many_items", "Too many items in one request"


class TooManyPixels(TooLarge):
    code, title = "too_many_pixels", "Too many pixels"


class TooLong(TooLarge):
    code, title = "too_long", "The input is too long"


class UnsupportedMedia(BinderyError):
    code, status, title = "unsupported_media", 415, "This kind of file is not accepted here"


class Unprocessable(BinderyError):
    code, status, title = "unprocessable", 422, "The request was understood but cannot be carried out"


class InvalidParameter(Unprocessable):
    code, title = "invalid_parameter", "A parameter has an invalid value"


class UnreadableMedia(Unprocessable):
    code, title = "unreadable_media", "The file cannot be decoded"


class NoVideoStream(Unprocessable):
    code, title = "no_video_stream", "The file has no video stream"


class NoAudioStream(Unprocessable):
    code, title = "no_audio_stream", "The file has no audio stream"


class EmptyMedia(Unprocessable):
    code, title = "empty_media", "The input is empty"


class AmbiguousDepth(Unprocessable):
    code, title = "ambiguous_depth", "The depth file does not say what its values mean"


class InvalidFilter(Unprocessable):
    code, title = "invalid_filter", "The filter is not valid"


class DimensionMismatch(Unprocessable):
    code, title = "dimension_mismatch", "The vector has the wrong dimension"


class DecoderKilled(Unprocessable):
    code, title = "decoder_killed", "Decoding this file used too much time or memory"


class PoisonFile(Unprocessable):
    code, title = "poison_file", "Each time it was tried alone, the whole process died"


class SnapshotDamaged(Unprocessable):
    code, title = "snapshot_damaged", "The snapshot is not as it was written"


class NotOffered(Unprocessable):
    code, title = "not_offered", "The store of the collections does not offer this"


class SourceNotAllowed(Unprocessable):
    code, title = "source_not_allowed", "This server does not index from there"


class TooManyFailures(Unprocessable):
    code, title = "too_many_failures", "More of the job's files failed than it allows"


class UrlNotAllowed(Unprocessable):
    code, title = "url_not_allowed", "This server does not fetch this URL"


class UrlFetchFailed(Unprocessable):
    code, title = "url_fetch_failed", "The URL could not be fetched"


class ModelNotLoaded(Unprocessable):
    code, title = "model_not_loaded", "The bundle cannot be loaded"


class TooManyRequests(BinderyError):
    """This caller's share is used up; the server itself is well."""

    code, status, title, retryable = "too_many_requests", 429, "Too many requests", True


class RateLimited(TooManyRequests):
    code, title = "rate_limited", "Too many requests in too short a time"


class TooManyInflight(TooManyRequests):
    code, title = "too_many_inflight", "Too many requests at the same time"


class ServerFault(BinderyError):
    """Ours, not the caller's."""


class InternalError(ServerFault):
    code, status, title = "internal", 500, "Internal error"


class CatalogDamaged(ServerFault):
    code, status, title = "catalog_damaged", 500, "The data directory's catalog cannot be read"


class CatalogTooNew(ServerFault):
    code, status, title = "catalog_too_new", 500, "The data directory was written by a newer bindery"


class Unavailable(ServerFault):
    code, status, title, retryable = "unavailable", 503, "Temporarily unavailable", True


class QueueFull(Unavailable):
    code, title = "queue_full", "The queue is full"


class Starting(Unavailable):
    code, title = "starting", "The server is still starting"


class Draining(Unavailable):
    code, title = "draining", "The server is shutting down"


class EngineDown(Unavailable):
    code, title = "engine_down", "The inference engine is not running"


class StorageFull(Unavailable):
    code, title = "storage_full", "No space left on the server's disk"


class SourceUnavailable(Unavailable):
    code, title = "source_unavailable", "The place where the files lie does not answer"


class StoreUnavailable(Unavailable):
    code, title = "store_unavailable", "The store of the collections does not answer"


class ClusterUnavailable(Unavailable):
    code, title = "cluster_unavailable", "No machine of the cluster can work"


class DeadlineExceeded(ServerFault):
    code, status, title, retryable = "deadline_exceeded", 504, "The deadline passed", True


class BundleError(ServerFault):
    code, title = "bundle_error", "The bundle cannot be used"


class BundleNotFound(BundleError):
    code, title = "bundle_not_found", "No such bundle"


class BundleDamaged(BundleError):
    code, title = "bundle_damaged", "A file of the bundle is missing, truncated or changed"


class BundleTooNew(BundleError):
    code, title = "bundle_too_new", "The bundle was written by a newer bindery"


class BundleDiffers(BundleError):
    code, title = "bundle_differs", "A graph gives another vector here than at its export"


class DeviceUnavailable(BundleError):
    code, title = "device_unavailable", "The wanted device cannot run this bundle"


def error_table() -> Iterator[type[BinderyError]]:
    """Every concrete error class (the leaves of the tree), parents before children, in the order above."""
    pending: list[type[BinderyError]] = [BinderyError]
    while pending:
        cls = pending.pop(0)
        children = cls.__subclasses__()
        if not children:
            yield cls
        pending = children + pending
