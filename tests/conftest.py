"""For all tests: nothing here is timed, so no property is held to a time by hypothesis either."""

from __future__ import annotations

from hypothesis import settings

settings.register_profile("untimed", deadline=None)
settings.load_profile("untimed")
