"""Does it pay, on this processor, to prefetch a batch and to snap batches to few sizes? Processor time an item with, over without.

prefetch  48 callers of one `Batcher` with ready tensors, who ask again as soon as they are answered; the next full batch is collated
          while the graph runs, or not
snapped   batches of 1 to 16 items, with their last row repeated up to the next bucket, or as they are

Both sides of a ratio run in short turns. Run: python bench/prefetch.py [--seconds 0.6] [--turns 9]
"""

from __future__ import annotations

import argparse
import asyncio
import json
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from statistics import median

import numpy as np
from serving import ready_tensors

from bindery.bundle import find_bundle, open_bundle
from bindery.decoded import Tensors
from bindery.engine.batching import Batcher
from bindery.engine.turns import Turns
from bindery.runtime.collate import collate, snapped
from bindery.runtime.cores import usable_cores
from bindery.runtime.encoder import Encoder
from bindery.runtime.open import open_encoder
from bindery.runtime.processor import processor_name

RESULT = Path(__file__).parent / "results" / "prefetch.json"
BATCH, CALLERS = 16, 48
Rate = tuple[float, float]
"""Items a second, and milliseconds of processor time an item."""


async def batched(encoder: Encoder, items: list[Tensors], seconds: float, prefetch: bool) -> Rate:
    with ThreadPoolExecutor(1) as runtime, ThreadPoolExecutor(1) as staging:
        batcher = Batcher(
            encoder,
            pad_id=0,
            max_batch=BATCH,
            turns=Turns(),
            executor=runtime,
            on_batch=lambda *_: None,
            staging=staging if prefetch else None,
        )
        loop = asyncio.create_task(batcher.run())
        done, began, busy = 0, time.perf_counter(), time.process_time()

        async def caller(number: int) -> None:
            nonlocal done
            while time.perf_counter() - began < seconds:
                await batcher.infer(items[number % len(items)], None)
                done += 1

        await asyncio.gather(*(caller(number) for number in range(CALLERS)))
        rate = done / (time.perf_counter() - began), (time.process_time() - busy) * 1000 / done
        loop.cancel()
        await asyncio.gather(loop, return_exceptions=True)
    return rate


def sized(encoder: Encoder, items: list[Tensors], seconds: float, snap: bool) -> Rate:
    sizes = np.random.default_rng(0).integers(1, BATCH + 1, 1000)
    done, began, busy = 0, time.perf_counter(), time.process_time()
    for size in sizes:
        tensors = collate(items[:size])
        encoder.encode(snapped(tensors, BATCH) if snap else tensors)
        done += int(size)
        if time.perf_counter() - began > seconds:
            break
    return done / (time.perf_counter() - began), (time.process_time() - busy) * 1000 / done


def compared(with_it: Callable[[], Rate], without: Callable[[], Rate], turns: int) -> dict[str, float]:
    pairs = [(with_it(), without()) for _ in range(turns)]
    return {
        "per_s_ratio": round(median(one[0] / other[0] for one, other in pairs), 3),
        "cpu_ms_ratio": round(median(one[1] / other[1] for one, other in pairs), 3),
        "cpu_ms_with": round(median(one[1] for one, _ in pairs), 3),
        "cpu_ms_without": round(median(other[1] for _, other in pairs), 3),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=0.6)
    parser.add_argument("--turns", type=int, default=9)
    arguments = parser.parse_args()
    seconds, turns = arguments.seconds, arguments.turns
    bundle = open_bundle(find_bundle("starter"))
    document: dict[str, object] = {"processor": processor_name(), "cores": usable_cores(), "bundle": bundle.name}
    for modality in ("text", "image", "audio"):
        encoder, items = open_encoder(bundle, modality, device="cpu"), ready_tensors(bundle, modality, BATCH)
        encoder.encode(collate(items))
        document[modality] = {
            "prefetch": compared(
                lambda e=encoder, i=items: asyncio.run(batched(e, i, seconds, True)),  # type: ignore[misc]
                lambda e=encoder, i=items: asyncio.run(batched(e, i, seconds, False)),  # type: ignore[misc]
                turns,
            ),
            "snapped": compared(
                lambda e=encoder, i=items: sized(e, i, seconds, True),  # type: ignore[misc]
                lambda e=encoder, i=items: sized(e, i, seconds, False),  # type: ignore[misc]
                turns,
            ),
        }
        print(modality, json.dumps(document[modality], indent=1), flush=True)
    RESULT.write_text(json.dumps(document, indent=1) + "\n")


if __name__ == "__main__":
    main()
