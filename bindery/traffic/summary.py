"""What a run says: goodput, latencies and refusals, as one JSON document."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any

from bindery.traffic.generator import Outcome, Run

PERCENTILES = (50, 90, 99, 99.9)
BUSY_SHARE = 0.7
"""Above, the generator itself may have been late, and the run says little about the server."""


def summarise(run: Run) -> dict[str, Any]:
    plan, outcomes = run.plan, run.outcomes
    good = [outcome for outcome in outcomes if is_good(outcome, plan.deadline_ms)]
    refused = [outcome for outcome in outcomes if outcome.status in (429, 503)]
    kinds = sorted({outcome.kind for outcome in outcomes})
    return {
        "rate_per_s": plan.rate,
        "arrivals": plan.arrivals,
        "duration_s": plan.duration_s,
        "deadline_ms": plan.deadline_ms,
        "seed": plan.seed,
        "requests": len(outcomes),
        "good": len(good),
        "goodput_per_s": round(len(good) / plan.duration_s, 2),
        "late": sum(outcome.status == 200 for outcome in outcomes) - len(good),
        "latency_ms": percentiles(good),
        "latency_ms_by_kind": {kind: percentiles([one for one in good if one.kind == kind]) for kind in kinds},
        "refused_latency_ms": percentiles(refused),
        "refused_latency_ms_from_sending": spread(one.latency_ms - one.lag_ms for one in refused),
        "generator_lag_ms": spread(one.lag_ms for one in outcomes if one.code != "client_dropped"),
        "errors": dict(Counter(outcome.code for outcome in outcomes if outcome.code and not _right_refusal(outcome)).most_common()),
        "poison": {"sent": sum(one.poison for one in outcomes), "refused_rightly": sum(_right_refusal(one) for one in outcomes)},
        "client_cpu_share": round(run.cpu_share, 3),
        "client_too_busy": run.cpu_share > BUSY_SHARE,
    }


def is_good(outcome: Outcome, deadline_ms: float) -> bool:
    return outcome.status == 200 and outcome.latency_ms <= deadline_ms


def percentiles(outcomes: Iterable[Outcome]) -> dict[str, float]:
    """Of the latencies, in milliseconds; empty without any."""
    return spread(outcome.latency_ms for outcome in outcomes)


def spread(values: Iterable[float]) -> dict[str, float]:
    """Their `PERCENTILES`; empty without any."""
    ordered = sorted(values)
    return {f"p{share:g}": round(_at(ordered, share), 2) for share in PERCENTILES} if ordered else {}


def _at(ordered: Sequence[float], percent: float) -> float:
    """The smallest value that at least ``percent`` of all values do not exceed. In whole thousandths, free of rounding errors."""
    return ordered[max(0, -(-round(percent * 10) * len(ordered) // 1000) - 1)]


def _right_refusal(outcome: Outcome) -> bool:
    return outcome.poison and outcome.status in (413, 415, 422)
