"""The one list of limits. `GET /v1/limits` prints it; `BINDERY_LIMITS__<NAME>` changes a row."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field

MIB = 1024 * 1024


class Limits(BaseModel):
    """Bounds on what one caller may ask for, each checked before the work it bounds is done."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    body_bytes: int = Field(256 * MIB, gt=0, description="bytes of one request body")
    json_body_bytes: int = Field(96 * MIB, gt=0, description="bytes of one JSON body (it is held in memory)")
    json_text_bytes: int = Field(48 * MIB, gt=0, description="bytes of one JSON body besides its base64 files")
    json_values: int = Field(3_000_000, gt=0, description="values of one JSON body; a list or object counts as 100")
    json_depth: int = Field(32, ge=8, le=256, description="lists and objects of a JSON body inside each other")
    field_bytes: int = Field(256 * 1024, gt=0, description="bytes of one field of a form that is no file")
    form_fields: int = Field(64, gt=0, description="fields of a form besides items, labels and templates")
    file_bytes: int = Field(200 * MIB, gt=0, description="bytes of one media file")
    items_text: int = Field(2048, gt=0, description="texts in one request; as many as OpenAI takes, whose clients batch up to that")
    items_media: int = Field(64, gt=0, description="media items in one request")
    labels: int = Field(1000, gt=0, description="labels in one classification")
    templates: int = Field(100, gt=0, description="prompt templates in one classification")
    text_chars: int = Field(20_000, gt=0, description="characters of one text")
    pixels: int = Field(50_000_000, gt=0, description="pixels of one picture or one video frame")
    side_px: int = Field(16_384, gt=0, description="longest side of a picture or a frame, in pixels")
    media_seconds: float = Field(600.0, gt=0, description="length of one audio or video item (of the asked part, or of each clip)")
    clips: int = Field(2000, gt=0, description="clips of one audio or video item")
    audio_channels: int = Field(8, gt=0, description="channels of one audio file")
    video_frames: int = Field(200_000, gt=0, description="frames of one video item")
    decode_seconds: float = Field(20.0, gt=0, description="wall time to decode and prepare one item")
    decode_memory_bytes: int = Field(2048 * MIB, gt=0, description="address space of one decoder process beyond what it starts with")
    queue_items: int = Field(4096, gt=0, description="items waiting or in work over all callers")
    queue_ms: int = Field(10_000, gt=0, description="estimated time until the work that waits is done; beyond, 503 queue_full")
    queue_bytes: int = Field(1024 * MIB, gt=0, description="bytes of files in memory and of tensors, of items waiting or in work")
    deadline_ms: int = Field(30_000, gt=0, description="default time a request may take")
    deadline_max_ms: int = Field(120_000, gt=0, description="longest time a caller may ask for")
    top_k: int = Field(1000, gt=0, description="hits of one search")
    search_depth: int = Field(10_000, gt=0, le=16_384, description="hits that the offset and the top_k of one search reach together")
    page_items: int = Field(1000, gt=0, description="items of one page")
    metadata_bytes: int = Field(64 * 1024, gt=0, description="JSON metadata of one item")
    url_chars: int = Field(4096, gt=0, description="characters of a URL")
    url_bytes: int = Field(64 * MIB, gt=0, description="bytes of a file that is fetched from a URL")
    url_seconds: float = Field(15.0, gt=0, description="time to fetch a URL, with its redirects")
    url_connect_seconds: float = Field(5.0, gt=0, description="time until a URL's server has taken the connection")
    url_redirects: int = Field(3, ge=0, description="redirects from one URL")
    url_fetches: int = Field(4, gt=0, description="URLs fetched at the same time over all callers; others wait")
    filter_clauses: int = Field(256, gt=0, description="clauses of one filter")
    filter_depth: int = Field(16, gt=0, le=100, description="filters of one filter inside each other")
    filter_values: int = Field(10_000, gt=0, le=30_000, description="values in all the lists of one filter; SQLite takes 32,766 parameters")
    mix_parts: int = Field(16, gt=0, description="parts of one mixed query")
    collections: int = Field(1000, gt=0, description="collections in one data directory")
