"""How long does a sound of five seconds take, file to vector on one core, in one bundle and in another?

Both in one process and in turns, so that a neighbour's load falls on both. The sound is noise in an Ogg Opus file.
Run: python bench/sound_towers.py OLD_BUNDLE NEW_BUNDLE [--rounds 40]
"""

from __future__ import annotations

import argparse
import io
import json
import time
from pathlib import Path
from statistics import median

import numpy as np
import soundfile
from large_towers import processor

from bindery.embedder import load

RESULT = Path(__file__).parent / "results" / "sound_towers.json"


def sound(seconds: float = 5.0, rate: int = 48_000) -> bytes:
    samples = np.random.default_rng(0).normal(0, 0.1, int(seconds * rate)).astype(np.float32)
    stream = io.BytesIO()
    soundfile.write(stream, samples, rate, format="OGG", subtype="OPUS")
    return stream.getvalue()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("old")
    parser.add_argument("new")
    parser.add_argument("--rounds", type=int, default=40)
    asked = parser.parse_args()
    embedders = {name: load(getattr(asked, name), device="cpu", threads=1) for name in ("old", "new")}
    data = sound()
    took: dict[str, list[float]] = {name: [] for name in embedders}
    for turn in range(asked.rounds + 3):
        for name, embedder in embedders.items():
            started = time.perf_counter()
            embedder.embed("audio", data)
            if turn >= 3:
                took[name].append(1000 * (time.perf_counter() - started))
    result = {
        "processor": processor(),
        "threads": 1,
        "seconds": 5.0,
        "rounds": asked.rounds,
        "median_ms": {name: round(median(times), 2) for name, times in took.items()},
        "least_ms": {name: round(min(times), 2) for name, times in took.items()},
        "old_over_new": round(median(took["old"]) / median(took["new"]), 2),
    }
    RESULT.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    print(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
