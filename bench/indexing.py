"""What does a job cost? Files a second of a whole indexing job over the bare runtime's on ready tensors, beside a plain loop.

job    `JobRun`: list, hash, decode, embed, commit, report, into a fresh collection; the engine is started before
bare   the same encoder on tensors that were prepared before, in full batches: what the model alone would take
plain  what one writes without a job: for each file read, decode, prepare; embed each full batch; append vectors and names

Beside the seconds, the processor time of a file: of the job's own process (graphs included), of its decoders, and of the
bare model; neighbours change that less. The three run in turns on the same files, so that a neighbour's load falls on all;
ratios are medians over the turns. Two sizes of model: the starter, where decoding costs half of what the model does, and a
tower of ViT-B/14 size (random weights), where the model is the bottleneck. Then memory of the job's process and its decoders
over many files, sampled while it runs.
Run: python bench/indexing.py [--only memory vit_b starter] [--quick] [--scratch DIR]
The large tower is made once in the scratch directory (350 MB).
"""

from __future__ import annotations

import argparse
import asyncio
import io
import json
import os
import tempfile
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
from large_bundle import SPECS, TOKENIZER
from PIL import Image

from bindery.bundle import MANIFEST, Bundle, find_bundle, open_bundle
from bindery.collections import Store
from bindery.decoded import Tensors
from bindery.engine.engine import Engine, EnginePolicy
from bindery.jobs.executor import OneProcess
from bindery.jobs.ledger import Ledger
from bindery.jobs.report import Report
from bindery.jobs.run import JobRun
from bindery.jobs.spec import JobSpec
from bindery.jobs.target import in_collections
from bindery.kinds import KINDS, parse_options
from bindery.limits import MIB, Limits
from bindery.media.source import Source
from bindery.runtime.collate import collate
from bindery.runtime.processor import processor_name

RESULT = Path(__file__).parent / "results/indexing.json"
BATCH = 16
NAME = "vit-b-random"


@dataclass(frozen=True, slots=True)
class Effort:
    starter_files: int
    large_files: int
    turns: int
    memory_files: int


QUICK, FULL = Effort(96, 32, 1, 300), Effort(400, 32, 3, 2000)


def base_bundle(scratch: Path) -> Path:
    """A picture tower of ViT-B size beside a text tower of two layers, which no picture passes."""
    directory = scratch / NAME
    if (directory / MANIFEST).is_file():
        return directory
    import torch

    from export.source import TowerSource
    from export.write_bundle import BundleOrder, write_bundle
    from training.towers.build import build_tower
    from training.towers.clip_text import ClipTextConfig
    from training.towers.vit import VitConfig

    towers = {
        "text": ClipTextConfig(width=512, layers=2, heads=8, mlp_width=2048, dimension=512),
        "image": VitConfig(width=768, layers=12, heads=12, mlp_width=3072, dimension=512),
    }
    words = TOKENIZER.read_text(encoding="utf-8")
    torch.manual_seed(0)
    sources = [
        TowerSource(
            modality,
            SPECS[modality],
            lambda config=config: build_tower(config).eval(),  # type: ignore[misc]
            None if modality == "text" else 100.0,
            ("{}",),
            words if modality == "text" else None,
        )
        for modality, config in towers.items()
    ]
    order = BundleOrder(
        NAME, "1", "Apache-2.0", {"weights": "random"}, max_batch={"text": 16, "image": BATCH}, min_cosine=0.999, max_abs=1e-2
    )
    write_bundle(directory, sources, order)
    return directory


def photographs(folder: Path, count: int) -> list[Path]:
    """JPEGs of 640 x 480 that look like nothing, each with content of its own."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = [folder / f"{number:05}.jpg" for number in range(count)]
    for number, path in enumerate(paths):
        if not path.exists():
            small = np.random.default_rng(number).integers(0, 255, (12, 16, 3), dtype=np.uint8)
            stream = io.BytesIO()
            Image.fromarray(small).resize((640, 480), Image.Resampling.BICUBIC).save(stream, "JPEG", quality=85)
            path.write_bytes(stream.getvalue())
    return paths


def prepared(bundle: Bundle, path: Path) -> Tensors:
    spec = bundle.modality("image").spec
    prepare = KINDS[spec.kind].prepare
    assert prepare is not None
    return prepare(Source.of(path), spec, parse_options(spec.kind, {}), Limits()).tensors


def bare(engine: Engine, ready: Tensors, count: int) -> float:
    """Seconds for as many items as there are files."""
    began = time.perf_counter()
    for _ in range(0, count, BATCH):
        engine.encoders["image"].encode(ready)
    return time.perf_counter() - began


def plain(engine: Engine, paths: list[Path], out: Path) -> float:
    began = time.perf_counter()
    with (out / "vectors.f32").open("wb") as vectors, (out / "names.txt").open("w") as names:
        for start in range(0, len(paths), BATCH):
            some = paths[start : start + BATCH]
            batch = collate([prepared(engine.bundle, path) for path in some])
            vectors.write(engine.encoders["image"].encode(batch).tobytes())
            names.writelines(f"{path}\n" for path in some)
        vectors.flush()
        os.fsync(vectors.fileno())
    return time.perf_counter() - began


async def job(engine: Engine, folder: Path, data: Path, include: str = "*") -> Report:
    ledger = Ledger(data)
    try:
        with Store(data) as store:
            spec = JobSpec(source=str(folder), collection="bench", include=(include,))
            return await JobRun(OneProcess(engine), in_collections(store), ledger, ledger.add(spec, "cli")).run()
    finally:
        ledger.close()


async def timed_job(engine: Engine, folder: Path, count: int) -> float:
    with tempfile.TemporaryDirectory() as data:
        began = time.perf_counter()
        report = await job(engine, folder, Path(data))
        seconds = time.perf_counter() - began
    assert (report.done, report.failed, report.encoded) == (count, 0, count), report
    return seconds


async def with_engine(directory: Path, work: Callable[[Engine], Awaitable[dict[str, Any]]]) -> dict[str, Any]:
    engine = Engine(open_bundle(directory), Limits(), EnginePolicy(cache_bytes=0, max_batch=BATCH))
    await engine.start()
    try:
        return await work(engine)
    finally:
        await engine.stop(5)


async def speed(engine: Engine, folder: Path, count: int, turns: int) -> dict[str, Any]:
    paths = photographs(folder, count)
    ready = collate([prepared(engine.bundle, path) for path in paths[:BATCH]])
    bare(engine, ready, BATCH)
    rows: list[dict[str, float]] = []
    costs: list[dict[str, float]] = []
    for turn in range(turns):
        with tempfile.TemporaryDirectory() as out:
            began = time.process_time()
            row = {"bare": await asyncio.to_thread(bare, engine, ready, count)}
            cost = {"bare": time.process_time() - began}
            began, others = time.process_time(), decoders_cpu_s(os.getpid())
            row["job"] = await timed_job(engine, folder, count)
            cost |= {"job_own": time.process_time() - began, "job_decoders": decoders_cpu_s(os.getpid()) - others}
            costs.append(cost)
            row["plain"] = await asyncio.to_thread(plain, engine, paths, Path(out))
            row["bare_after"] = await asyncio.to_thread(bare, engine, ready, count)  # the job stands between the two
        rows.append(row)
        print(turn, {name: f"{count / seconds:.1f}/s" for name, seconds in row.items()}, flush=True)
    model = [(row["bare"] + row["bare_after"]) / 2 for row in rows]
    over_bare = sorted(alone / row["job"] for alone, row in zip(model, rows, strict=True))
    return {
        "files": count,
        "turns": turns,
        "job_files_per_s": round(count / median(row["job"] for row in rows), 2),
        "bare_files_per_s": round(count / median(model), 2),
        "plain_files_per_s": round(count / median(row["plain"] for row in rows), 2),
        "job_over_bare": round(median(over_bare), 3),
        "job_over_bare_min_max": [round(over_bare[0], 3), round(over_bare[-1], 3)],
        "job_over_plain": round(median(row["plain"] / row["job"] for row in rows), 3),
        "cpu_ms_per_file": {name: round(1000 * median(cost[name] for cost in costs) / count, 2) for name in costs[0]},
    }


def decoders_cpu_s(root: int) -> float:
    """Processor time that those below this process have used until now."""
    total_ns = 0
    for pid in family(root) - {root}:
        with suppress(OSError):  # it has just ended
            total_ns += int(Path(f"/proc/{pid}/schedstat").read_text().split()[0])
    return total_ns / 1e9


def family(root: int) -> set[int]:
    """This process and all below it."""
    parents: dict[int, int] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                parents[int(entry.name)] = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
            except (OSError, ValueError):
                continue  # it has just ended
    below = {root}
    while more := {pid for pid, parent in parents.items() if parent in below} - below:
        below |= more
    return below


def resident_bytes(root: int) -> dict[str, int]:
    """Private memory of this process and of all below it (shared pages would count many times)."""
    sizes = {"own": 0, "decoders": 0}
    for pid in family(root):
        try:
            lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
        except OSError:
            continue
        private = sum(int(line.split()[1]) * 1024 for line in lines if line.startswith("Private_"))
        sizes["own" if pid == root else "decoders"] += private
    return sizes


async def memory(engine: Engine, folder: Path, count: int) -> dict[str, Any]:
    """The same job over many files: what its processes hold, by quarters of its way."""
    photographs(folder, count)
    samples: list[tuple[int, dict[str, int]]] = []
    with tempfile.TemporaryDirectory() as data:
        running = asyncio.create_task(job(engine, folder, Path(data)))
        while not running.done():
            await asyncio.sleep(0.5)
            done = await asyncio.to_thread(_done, Path(data))
            samples.append((done, await asyncio.to_thread(resident_bytes, os.getpid())))
        report = await running
    assert report.done == count, report
    quarters: dict[str, Any] = {}
    for quarter in range(1, 4):  # the first one fills queues, and the collection is made in it
        low, high = quarter * count // 4, (quarter + 1) * count // 4
        within = [size for done, size in samples if low <= done <= high]
        quarters[f"{25 * quarter}-{25 * quarter + 25} %"] = {
            f"{name}_mib": round(median(size[name] for size in within) / MIB, 1) for name in ("own", "decoders")
        } | {"samples": len(within)}
    last, second = quarters["75-100 %"], quarters["25-50 %"]
    return {
        "files": count,
        "quarters": quarters,
        "own_growth_mib": round(last["own_mib"] - second["own_mib"], 1),
        "decoders_growth_mib": round(last["decoders_mib"] - second["decoders_mib"], 1),
    }


def _done(data: Path) -> int:
    ledger = Ledger(data)
    try:
        jobs = ledger.jobs()
        return ledger.counts(jobs[0].id)["done"] if jobs else 0
    finally:
        ledger.close()


async def main(parts: list[str], effort: Effort, scratch: Path, memory_bundle: str, out: Path | None) -> None:
    result: dict[str, Any] = json.loads(out.read_text()) if out and out.exists() else {}
    folder = scratch / "pictures"
    for part in parts:
        directory = base_bundle(scratch) if part == "vit_b" else find_bundle(memory_bundle if part == "memory" else "starter")
        count = {"vit_b": effort.large_files, "starter": effort.starter_files, "memory": effort.memory_files}[part]
        pictures = folder / f"{count}"
        load = round(os.getloadavg()[0], 2)
        measured = await with_engine(
            directory,
            lambda engine, count=count, pictures=pictures, part=part: (  # type: ignore[misc]
                memory(engine, pictures, count) if part == "memory" else speed(engine, pictures, count, effort.turns)
            ),
        )
        machine = {"processor": processor_name(), "cores": len(os.sched_getaffinity(0)), "load_before": load, "source": "JPEG 640 x 480"}
        result[part] = measured | machine | {"bundle": directory.name}
        print(part, json.dumps(result[part]), flush=True)
        if out is not None:
            out.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--only", nargs="+", choices=["vit_b", "starter", "memory"], default=["memory", "vit_b", "starter"]
    )  # memory first: what the others leave would be in it
    parser.add_argument("--quick", action="store_true", help="fewer files; writes nothing unless --out is given")
    parser.add_argument("--turns", type=int)
    parser.add_argument("--memory-bundle", default="starter", help="a small one makes many files quick")
    parser.add_argument("--scratch", type=Path, default=Path(tempfile.gettempdir()) / "bindery-bench")
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    out = arguments.out or (None if arguments.quick else RESULT)
    arguments.scratch.mkdir(parents=True, exist_ok=True)
    effort = QUICK if arguments.quick else FULL
    effort = replace(effort, turns=arguments.turns or effort.turns)
    asyncio.run(main(arguments.only, effort, arguments.scratch, arguments.memory_bundle, out))
