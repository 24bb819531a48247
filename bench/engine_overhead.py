"""What does the engine cost? Items a second through `Engine.embed` over the bare encoder's on ready tensors, and one item's latency.

The bare encoder runs full batches of tensors that were prepared before; the engine gets the items (texts, or JPEG files, which it
also decodes) from 64 callers that ask again as soon as they are answered. The cache is off. The two run in short turns, so that
a neighbour's load falls on both; processor time of this process (decoders are others) is told too, since neighbours do not change
it much. Run: python bench/engine_overhead.py [--bundle starter] [--seconds 0.5] [--rounds 15]
"""

from __future__ import annotations

import argparse
import asyncio
import io
import json
import os
import platform
import time
from pathlib import Path
from statistics import median

import numpy as np
from PIL import Image

from bindery.bundle import find_bundle, open_bundle
from bindery.decoded import Tensors
from bindery.engine.engine import Engine, EnginePolicy
from bindery.kinds import KINDS, parse_options
from bindery.limits import Limits
from bindery.media.source import Source
from bindery.prepare.tokens import TextTokenizer
from bindery.runtime.collate import collate
from bindery.spec import TextSpec

BATCH = 16
CALLERS = 64
RESULT = Path(__file__).parent / "results" / "engine_overhead.json"
Value = str | Source
Rate = tuple[float, float]
"""Items a second, and milliseconds of processor time an item."""


def texts(count: int) -> list[Value]:
    words = ("a", "small", "red", "dog", "runs", "over", "green", "hill", "beside", "old", "house", "near", "quiet", "water")
    rng = np.random.default_rng(0)
    return [" ".join(rng.choice(words, size=12)) for _ in range(count)]


def pictures(count: int) -> list[Value]:
    made: list[Value] = []
    for number in range(count):
        small = np.random.default_rng(number).integers(0, 255, (12, 16, 3), dtype=np.uint8)
        stream = io.BytesIO()
        Image.fromarray(small).resize((640, 480), Image.Resampling.BICUBIC).save(stream, "JPEG", quality=85)
        made.append(Source.of(stream.getvalue(), name=f"{number}.jpg"))
    return made


def prepared(engine: Engine, modality: str, value: Value) -> Tensors:
    spec = engine.bundle.modality(modality).spec
    if isinstance(spec, TextSpec):
        return TextTokenizer(engine.bundle.path(spec.tokenizer), spec).encode(str(value)).tensors
    prepare = KINDS[spec.kind].prepare
    assert prepare is not None
    assert isinstance(value, Source)
    return prepare(value, spec, parse_options(spec.kind, {}), engine.limits).tensors


def bare_rate(engine: Engine, modality: str, items: list[Tensors], seconds: float) -> Rate:
    spec = engine.bundle.modality(modality).spec
    batch = collate(items, spec.pad_id if isinstance(spec, TextSpec) else 0)
    done, started, busy = 0, time.perf_counter(), time.process_time()
    while time.perf_counter() - started < seconds:
        engine.encoders[modality].encode(batch)
        done += len(items)
    return done / (time.perf_counter() - started), (time.process_time() - busy) * 1000 / done


async def engine_rate(engine: Engine, modality: str, values: list[Value], seconds: float) -> Rate:
    done, started, busy = 0, time.perf_counter(), time.process_time()

    async def caller(number: int) -> None:
        nonlocal done
        while time.perf_counter() - started < seconds:
            await engine.embed(modality, values[(number + done) % len(values)])
            done += 1

    await asyncio.gather(*(caller(number) for number in range(CALLERS)))
    return done / (time.perf_counter() - started), (time.process_time() - busy) * 1000 / done


async def latency_ms(engine: Engine, modality: str, values: list[Value], items: list[Tensors]) -> tuple[float, float]:
    """Medians of one item alone: the bare encoder, the engine."""
    bare, through = [], []
    for number in range(60):
        started = time.perf_counter()
        engine.encoders[modality].encode(collate([items[number % len(items)]]))
        bare.append((time.perf_counter() - started) * 1000)
        started = time.perf_counter()
        await engine.embed(modality, values[number % len(values)])
        through.append((time.perf_counter() - started) * 1000)
    return median(bare), median(through)


async def measure(engine: Engine, modality: str, seconds: float, rounds: int) -> dict[str, object]:
    values = texts(512) if engine.bundle.modality(modality).kind == "text" else pictures(64)
    items = [prepared(engine, modality, value) for value in values[:BATCH]]
    bare, through = [], []
    for _ in range(rounds):
        bare.append(bare_rate(engine, modality, items, seconds))
        through.append(await engine_rate(engine, modality, values, seconds))
    alone, engine_alone = await latency_ms(engine, modality, values, items)
    ratios = sorted(t[0] / b[0] for t, b in zip(through, bare, strict=True))
    return {
        "bare_items_per_s": round(median(rate for rate, _ in bare), 1),
        "engine_items_per_s": round(median(rate for rate, _ in through), 1),
        "ratio": round(median(ratios), 3),
        "ratio_quartiles": [round(ratios[len(ratios) // 4], 3), round(ratios[-1 - len(ratios) // 4], 3)],
        "bare_cpu_ms_per_item": round(median(cpu for _, cpu in bare), 3),
        "engine_cpu_ms_per_item": round(median(cpu for _, cpu in through), 3),
        "one_item_bare_ms_p50": round(alone, 2),
        "one_item_engine_ms_p50": round(engine_alone, 2),
    }


async def main(bundle: str, seconds: float, rounds: int) -> None:
    begun = time.perf_counter()
    engine = Engine(open_bundle(find_bundle(bundle)), Limits(), EnginePolicy(cache_bytes=0, max_batch=BATCH))
    await engine.start()
    started_s = time.perf_counter() - begun
    result = {
        "bundle": bundle,
        "cores": len(os.sched_getaffinity(0)),
        "machine": platform.machine(),
        "load_before": round(os.getloadavg()[0], 2),
        "start_to_ready_s": round(started_s, 2),
        "image_source": "JPEG 640 x 480, decoded by the engine; the bare figure has ready tensors",
        "modalities": {modality: await measure(engine, modality, seconds, rounds) for modality in ("text", "image")},
    }
    await engine.stop(5)
    RESULT.write_text(json.dumps(result, indent=1) + "\n")
    print(json.dumps(result, indent=1))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--bundle", default="starter")
    parser.add_argument("--seconds", type=float, default=0.5)
    parser.add_argument("--rounds", type=int, default=15)
    arguments = parser.parse_args()
    asyncio.run(main(arguments.bundle, arguments.seconds, arguments.rounds))
