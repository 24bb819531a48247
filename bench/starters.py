"""How long does a file take, file to vector on one core, with one starter and with another?

Both in one process and in turns, so that a neighbour's load falls on both; processor time, on the files of `examples/`.
Run: python bench/starters.py OLD_BUNDLE NEW_BUNDLE [--rounds 40]
An old starter is in the history: `git archive 9e9f4b9 bindery/bundles/starter | tar -x -C /tmp/first` has the first.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from statistics import median
from typing import Any

from large_towers import processor

from bindery.embedder import load

RESULT = Path(__file__).parent / "results" / "starters.json"
EXAMPLES = Path(__file__).parents[1] / "examples"
INPUTS: dict[str, Any] = {
    "text": "a dog barking in the rain",
    "image": EXAMPLES / "elephant.jpg",
    "audio": EXAMPLES / "rain.ogg",
    "depth": EXAMPLES / "bathroom-depth.png",
    "thermal": EXAMPLES / "cars-thermal.jpg",
    "video": EXAMPLES / "kitchen.mp4",
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("old")
    parser.add_argument("new")
    parser.add_argument("--rounds", type=int, default=40)
    asked = parser.parse_args()
    embedders = {name: load(getattr(asked, name), device="cpu", threads=1) for name in ("old", "new")}
    result: dict[str, Any] = {
        "processor": processor(),
        "threads": 1,
        "rounds": asked.rounds,
        "versions": {name: one.bundle.manifest.version for name, one in embedders.items()},
    }
    for modality, data in INPUTS.items():
        took: dict[str, list[float]] = {name: [] for name in embedders}
        for turn in range(asked.rounds + 3):
            for name, embedder in embedders.items():
                started = time.process_time()
                embedder.embed(modality, data)
                if turn >= 3:  # the first ones load
                    took[name].append(1000 * (time.process_time() - started))
        middle = {name: round(median(times), 2) for name, times in took.items()}
        result[modality] = {"cpu_ms": middle, "new_over_old": round(middle["new"] / middle["old"], 2)}
    RESULT.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    print(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
