"""What can go wrong on the way to a bundle. No caller over HTTP sees these, so they are not in `bindery.errors`' table."""

from __future__ import annotations


class ExportError(Exception):
    """Base. The message says what was wrong and what to do, and names the file, key or modality."""


class CheckpointError(ExportError):
    """A checkpoint is incomplete, has keys or shapes that its config does not explain, or is of an unsupported kind."""


class TextTowersDiffer(ExportError):
    """Two checkpoints were trained against different text towers, so their vectors cannot be compared."""


class ParityError(ExportError):
    """The exported graph does not compute what the torch tower computes."""


class ExportUsageError(ExportError):
    """The arguments make no sense together (exit code 2)."""
