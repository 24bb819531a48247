"""A picture of a run: latencies where they were due, and what happened in each second."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

from matplotlib.figure import Figure

from bindery.errors import InvalidParameter
from bindery.traffic.generator import Run
from bindery.traffic.summary import is_good


def draw_run(run: Run, path: Path) -> None:
    """Write the picture; its format is the suffix. Raises `InvalidParameter` for an unknown suffix."""
    figure = Figure(figsize=(10, 7), layout="constrained")
    latency, rates = figure.subplots(2, sharex=True)
    for kind in sorted({outcome.kind for outcome in run.outcomes}):
        answered = [outcome for outcome in run.outcomes if outcome.kind == kind and outcome.status == 200]
        latency.plot([one.due_s for one in answered], [one.latency_ms for one in answered], ".", markersize=3, label=kind)
    latency.set(ylabel="latency from the due time, ms", yscale="log", title=f"{run.plan.rate:g} requests/s, {run.plan.arrivals}")
    latency.legend(loc="upper right")
    words = {"in time": [], "refused or failed": []}  # type: dict[str, list[float]]
    for outcome in run.outcomes:
        words["in time" if is_good(outcome, run.plan.deadline_ms) else "refused or failed"].append(outcome.due_s)
    seconds = range(int(run.plan.duration_s) + 1)
    for word, times in words.items():
        counted = Counter(int(at) for at in times)
        rates.step(seconds, [counted[second] for second in seconds], where="post", label=word)
    rates.set(xlabel="due at, s", ylabel="requests in the second")
    rates.legend(loc="upper right")
    try:
        figure.savefig(path)
    except (ValueError, OSError) as error:
        raise InvalidParameter(f"the plot cannot be written to {path}: {error}") from error
