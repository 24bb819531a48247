"""The planner: how the rows of one partition are searched, by how many there are and how many of them may be returned.

    exact   every row is compared, or every one of few allowed rows: exact, and cheaper than anything clever
    scan    the codes of all lists, with the allowed rows as a selector inside the scan
    ann     the codes of all rows, or of the lists that the probe found to be enough

A filter never makes an answer shorter than it must be: a search by code that finds too few is done again exactly.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

from bindery.collections.denoising import crosses
from bindery.collections.registry import Probed
from bindery.collections.segment import Effort
from bindery.collections.tiers import Tiers

_SELECTIVE_EXACT = 50_000
_SELECTIVE = 0.25
_DEPTH_AT = 100_000  # rows for which `_DEPTH` is meant
_DEPTH = 1280  # rows to compare for ten hits; measured: 640 give a recall of 0.98 where the query is of another modality
_DEPTH_GROWTH = 0.6  # ten times the rows take four times the depth
_DEEPER_FILTERED = 4  # times the probed depth
_DEEPER_HITS = 0.75  # ten times the hits take six times the depth


@dataclass(frozen=True, slots=True)
class Plan:
    name: str
    effort: Effort | None  # None: exactly


def plan(rows: int, allowed: int, top_k: int, exact: bool, tiers: Tiers, probed: Probed | None) -> Plan:
    """``rows``: in the partition's segments and memory; ``allowed``: of them, after the filter; ``probed``: None when nothing is known."""
    if exact or allowed <= max(2 * top_k, tiers.always_exact) or (allowed <= _SELECTIVE_EXACT and allowed / rows <= _SELECTIVE):
        return Plan("exact", None)
    if probed is not None and probed.depth == 0:
        return Plan("exact", None)
    depth = safe_depth(rows, top_k) if probed is None else probed_depth(probed, rows, top_k)
    filtered = allowed < rows
    if filtered and probed is not None:  # the probe knows no filters; where they go against the query, neighbours lie denser
        depth *= _DEEPER_FILTERED
    if depth * 4 >= allowed:  # comparing so many is no cheaper than comparing all
        return Plan("exact", None)
    denoised = probed is None or crosses(probed.modality, probed.query_modality)
    if filtered:
        return Plan("scan", Effort(1.0, depth, denoised))
    return Plan("ann", Effort(1.0 if probed is None else probed.share, depth, denoised))


def for_any(probes: Sequence[Probed]) -> Probed | None:
    """For a query that does not say its modality: what the hardest of the known pairs needs, and no less than without a probe.

    Not what such queries needed lately: after a hundred pictures somebody asks with words.
    """
    if not probes:
        return None
    hardest = max(probes, key=lambda one: (one.depth == 0, one.depth))
    if hardest.depth == 0:
        return hardest
    return replace(
        hardest,
        query_modality="",
        share=1.0,
        depth=max(hardest.depth, safe_depth(hardest.rows, 10)),
        depth_100=max(safe_depth(hardest.rows, 100), *(one.depth_100 for one in probes)),
        recall=min(one.recall for one in probes),
    )


def probed_depth(probed: Probed, rows: int, top_k: int) -> int:
    """Between and beyond 10 and 100 hits by the power that these two follow, and for rows that came since by the usual one."""
    power = max(0.0, math.log10(max(1.0, probed.depth_100 / probed.depth)))
    grown = math.pow(max(1.0, rows / max(1, probed.rows)), _DEPTH_GROWTH)
    return max(2 * top_k, math.ceil(probed.depth * grown * math.pow(max(1.0, top_k / 10), power)))


def safe_depth(rows: int, top_k: int) -> int:
    """A depth that is enough for queries of any modality, as far as was measured."""
    return math.ceil(_DEPTH * math.pow(rows / _DEPTH_AT, _DEPTH_GROWTH) * math.pow(max(1.0, top_k / 10), _DEEPER_HITS))
