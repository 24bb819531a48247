"""What does it cost to decode and prepare one file? Processor time an item, beside the codec's own share of it.

codec    Pillow's `load`, or libsndfile's `read`: what nobody can save
here     `KINDS[...].prepare` in this process: decode, resize or spectrogram, normalise
decoder  the same in a decoder process, with what sending the tensor costs there
engine   what feeding the decoder and taking its tensor costs this process

Files of the starter's specs. With `--before CHECKOUT` an older checkout does the same in turns with this one, and the ratio of
the two is told (medians of turns; neighbours slow both). Each turn is a fresh process, with one thread.
Run: python bench/preparing.py [--before CHECKOUT] [--turns 5] [--items 150]
"""

from __future__ import annotations

import argparse
import io
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median

import numpy as np
import soundfile
from indexing import decoders_cpu_s
from PIL import Image

from bindery.bundle import find_bundle, open_bundle
from bindery.engine.pool import DecodePool
from bindery.engine.worker import Task
from bindery.kinds import KINDS, parse_options
from bindery.limits import Limits
from bindery.media.source import Source
from bindery.runtime.processor import processor_name

HERE = Path(__file__).resolve().parents[1]
RESULT = Path(__file__).parent / "results/preparing.json"
Row = dict[str, float]


def jpeg(width: int, height: int) -> bytes:
    small = np.random.default_rng(0).integers(0, 255, (12, 16, 3), dtype=np.uint8)
    stream = io.BytesIO()
    Image.fromarray(small).resize((width, height), Image.Resampling.BICUBIC).save(stream, "JPEG", quality=85)
    return stream.getvalue()


def wav(seconds: int, rate: int, channels: int) -> bytes:
    times = np.arange(seconds * rate) / rate
    tones = [0.3 * np.sin(2 * np.pi * (220 + 50 * channel) * times) for channel in range(channels)]
    noise = np.random.default_rng(0).normal(0, 0.02, (len(times), channels))
    stream = io.BytesIO()
    soundfile.write(stream, np.stack(tones, axis=1) + noise, rate, format="WAV", subtype="PCM_16")
    return stream.getvalue()


def files() -> dict[str, tuple[str, bytes]]:
    return {
        "JPEG 640 x 480": ("image", jpeg(640, 480)),
        "JPEG 2048 x 1536": ("image", jpeg(2048, 1536)),
        "WAV 2 s, 16 kHz, mono": ("audio", wav(2, 16_000, 1)),
        "WAV 10 s, 44.1 kHz, stereo": ("audio", wav(10, 44_100, 2)),
    }


def codec(kind: str, data: bytes) -> None:
    if kind == "image":
        Image.open(io.BytesIO(data)).load()
    else:
        soundfile.read(io.BytesIO(data), dtype="float32", always_2d=True)


def cpu_ms(work: Callable[[], object], items: int) -> float:
    work()
    began = time.process_time()
    for _ in range(items):
        work()
    return (time.process_time() - began) * 1000 / items


def one_turn(items: int) -> dict[str, Row]:
    bundle, limits, rows = open_bundle(find_bundle("starter")), Limits(), {}
    for name, (kind, data) in files().items():
        source, spec, options = Source.of(data), bundle.modality(kind).spec, parse_options(kind, {})
        prepare, task = KINDS[kind].prepare, Task(source, spec, options)
        assert prepare is not None
        row = {
            "codec_ms": cpu_ms(lambda kind=kind, data=data: codec(kind, data), items),  # type: ignore[misc]
            "here_ms": cpu_ms(lambda p=prepare, s=source, c=spec, o=options: p(s, c, o, limits), items),  # type: ignore[misc]
        }
        pool = DecodePool(1, limits, lambda _: None)  # a new one for each: what a heap does depends on what it has seen
        pool.start()
        try:
            pool.submit(task, None).result()
            others = decoders_cpu_s(os.getpid())
            row["engine_ms"] = cpu_ms(lambda task=task, pool=pool: pool.submit(task, None).result(), items)  # type: ignore[misc]
            row["decoder_ms"] = (decoders_cpu_s(os.getpid()) - others) * 1000 / (items + 1)
        finally:
            pool.stop()
        rows[name] = row
    return rows


def turn_of(checkout: Path, items: int) -> dict[str, Row]:
    environment = {"PYTHONPATH": str(checkout), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, str(Path(__file__).resolve()), "--one-turn", "--items", str(items)]
    done = subprocess.run(command, env=environment, cwd=checkout, capture_output=True, text=True, check=True)  # decoders look there first
    rows: dict[str, Row] = json.loads(done.stdout)
    return rows


def medians(turns: list[dict[str, Row]]) -> dict[str, Row]:
    return {name: {what: round(median(turn[name][what] for turn in turns), 3) for what in row} for name, row in turns[0].items()}


def ratios(before: list[dict[str, Row]], now: list[dict[str, Row]]) -> dict[str, Row]:
    """Now over before, turn by turn."""
    pairs = list(zip(before, now, strict=True))
    return {
        name: {what: round(median(new[name][what] / old[name][what] for old, new in pairs), 3) for what in row}
        for name, row in now[0].items()
    }


def main(before: Path | None, turns: int, items: int) -> None:
    load, then, now = os.getloadavg()[0], [], []
    for _ in range(turns):
        if before is not None:
            then.append(turn_of(before.resolve(), items))
        now.append(turn_of(HERE, items))
    result = {"processor": processor_name(), "load_average_before": round(load, 1), "turns": turns, "items": items, "now": medians(now)}
    if then:
        result |= {"before": medians(then), "now_over_before": ratios(then, now)}
    RESULT.write_text(json.dumps(result, indent=1) + "\n")
    print(json.dumps(result, indent=1))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--before", type=Path)
    parser.add_argument("--turns", type=int, default=5)
    parser.add_argument("--items", type=int, default=150)
    parser.add_argument("--one-turn", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.one_turn:
        print(json.dumps(one_turn(arguments.items)))
    else:
        main(arguments.before, arguments.turns, arguments.items)
