"""Containers by PyAV (FFmpeg): opened from bytes only, as the one format that was sniffed.

Never opened: playlists, concat scripts, other files, URLs. FFmpeg is handed an open file object, the demuxer's name,
and white lists that leave it nothing else to follow.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import av
import av.container
import av.logging

from bindery.errors import UnreadableMedia
from bindery.limits import Limits
from bindery.media.guard import reading
from bindery.media.source import Source
from bindery.media.whole import check_whole

_MOV = "mov,mp4,m4a,3gp,3g2,mj2"
_MATROSKA = "matroska,webm"
_DEMUXERS = {
    "video/mp4": _MOV,
    "video/quicktime": _MOV,
    "audio/mp4": _MOV,
    "video/x-matroska": _MATROSKA,
    "video/webm": _MATROSKA,
    "video/x-msvideo": "avi",
    "audio/ogg": "ogg",
    "audio/mpeg": "mp3",
    "audio/flac": "flac",
    "audio/wav": "wav",
    "audio/aac": "aac",
    "audio/aiff": "aiff",
}

av.logging.set_level(None)  # FFmpeg's own log would repeat on stderr what the errors here say; its writer also takes the GIL


@contextmanager
def open_container(source: Source, media_type: str, limits: Limits) -> Iterator[av.container.InputContainer]:
    """A demuxer over the source's bytes; every error inside the block becomes `UnreadableMedia`."""
    check_whole(source, media_type)
    demuxer = _DEMUXERS[media_type]
    options = {"format_whitelist": demuxer, "protocol_whitelist": "none"}
    # max_pixels: FFmpeg refuses larger frames before it allocates them, also when the size changes on the way
    codec = {"max_pixels": str(limits.pixels)}
    with (
        source.open() as file,
        reading(source, media_type),
        av.open(
            file, "r", format=demuxer.partition(",")[0], container_options=options, options=codec, metadata_errors="replace"
        ) as container,
    ):
        if not len(container.streams):
            raise UnreadableMedia(f"{source.name}: no stream could be found; the file is cut off or damaged")
        yield container
