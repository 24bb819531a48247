"""How long does a ViT-L/14-size graph take to load with and without `BINDERY_CACHE_DIR`, and what do two processes share?

Random weights, CPU, float32. Every load is a fresh process; with and without are loaded in turns. Two processes of each then run
one item at the same time, and the memory that is theirs alone is read from the system. Run: python bench/load_time.py [--quick]
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import tempfile
import time
from multiprocessing.connection import Connection
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import onnx_ir as ir
import onnxruntime
import torch
from large_towers import QUICK, TOWERS, inputs_of, processor

from bindery.bundle import Artefact, Bundle, FileEntry, Manifest, Modality, Parity, file_digest, open_bundle
from bindery.runtime.open import open_encoder
from bindery.spec import ImageSpec
from export.onnx_graph import opset, to_onnx
from export.weight_file import WeightFile
from training.towers.build import TowerConfig, build_tower

RESULT = Path(__file__).parent / "results" / "load_time.json"


def bundle_of(config: TowerConfig, root: Path) -> Bundle:
    torch.manual_seed(0)
    tower = build_tower(config).eval()
    model = to_onnx(tower, {name: torch.from_numpy(value) for name, value in inputs_of(tower, 2).items()}, {"batch": 8})
    (root / "image").mkdir(parents=True)
    WeightFile(root / "image/weights.bin").take(model)
    ir.save(model, root / "image/model.onnx")
    parity = Parity(reference="none", cosine_min=-1, max_abs=2, samples=0)
    artefact = Artefact(path="image/model.onnx", opset=opset(model), inputs=tower.inputs, max_batch=8, parity=parity)
    files = {
        str(path.relative_to(root)): FileEntry(sha256=file_digest(path), bytes=path.stat().st_size) for path in (root / "image").iterdir()
    }
    manifest = Manifest(
        format=1,
        name="bench",
        version="1",
        space="none",
        dimension=config.dimension,
        licence="none",
        modalities={"image": Modality(spec=ImageSpec(), artefacts=(artefact,))},
        files=files,
    )
    (root / "manifest.json").write_text(manifest.model_dump_json())
    return open_bundle(root)


def load(pipe: Connection, root: Path, cache: Path | None, threads: int) -> None:
    bundle = open_bundle(root, checksums=False)
    wall, cpu = time.perf_counter(), time.process_time()
    encoder = open_encoder(bundle, "image", device="cpu", threads=threads, cache_dir=cache)
    pipe.send((time.perf_counter() - wall, time.process_time() - cpu))
    while (tensors := pipe.recv()) is not None:
        started = time.perf_counter()
        vectors = encoder.encode(tensors)
        pipe.send((vectors, time.perf_counter() - started))
        pipe.recv()  # until both have run
        pipe.send(own_memory())


def own_memory() -> dict[str, float]:
    """MB: private to this process, and its fair share of all that it has mapped."""
    lines = dict(line.split(":", 1) for line in Path("/proc/self/smaps_rollup").read_text().splitlines()[1:])
    kilobytes = {name: int(value.split()[0]) for name, value in lines.items()}
    return {
        "private_mb": (kilobytes["Private_Clean"] + kilobytes["Private_Dirty"]) / 1e3,
        "proportional_mb": kilobytes["Pss"] / 1e3,
    }


class Loaded:
    """A process that has loaded the graph."""

    def __init__(self, root: Path, cache: Path | None, threads: int) -> None:
        context = multiprocessing.get_context("spawn")
        self.pipe, theirs = context.Pipe()
        self._process = context.Process(target=load, args=(theirs, root, cache, threads))
        self._process.start()
        self.wall_s, self.cpu_s = self.pipe.recv()

    def end(self) -> None:
        self.pipe.send(None)
        self._process.join()


def together(root: Path, cache: Path | None, threads: int, tensors: dict[str, Any]) -> dict[str, Any]:
    """Two processes run the same item; what each then has for itself."""
    both = [Loaded(root, cache, threads) for _ in range(2)]
    for one in both:
        one.pipe.send(tensors)
    ran = [one.pipe.recv() for one in both]
    for one in both:
        one.pipe.send("go on")
    memory = [one.pipe.recv() for one in both]
    for one in both:
        one.end()
    return {"vectors": ran[0][0], **{name: round(float(np.mean([one[name] for one in memory]))) for name in memory[0]}}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="a small tower (384 wide, 6 layers); writes nothing unless --out is given")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    config = QUICK if arguments.quick else TOWERS["image"]
    threads = len(os.sched_getaffinity(0))
    with tempfile.TemporaryDirectory() as directory:
        root, cache = Path(directory) / "bundle", Path(directory) / "cache"
        bundle = bundle_of(config, root)
        first = Loaded(root, cache, threads)
        first.end()
        loads: list[tuple[Loaded, Loaded]] = []
        for _ in range(arguments.rounds):
            pair = Loaded(root, None, threads), Loaded(root, cache, threads)
            for one in pair:
                one.end()
            loads.append(pair)
        shape = (1, *(side for side in bundle.modality("image").artefacts[0].inputs[0].shape[1:] if isinstance(side, int)))
        tensors = {"pixel_values": np.random.default_rng(0).standard_normal(shape).astype(np.float32)}
        without, kept = (together(root, place, threads, tensors) for place in (None, cache))
        row = {
            "first_start_s": round(first.wall_s, 2),
            "load_s": round(median(one.wall_s for one, _ in loads), 3),
            "load_kept_s": round(median(one.wall_s for _, one in loads), 3),
            "ratio": round(median(one.wall_s / other.wall_s for one, other in loads), 2),
            "cpu_ratio": round(median(one.cpu_s / other.cpu_s for one, other in loads), 2),
            "bit_equal": bool(np.array_equal(without.pop("vectors"), kept.pop("vectors"))),
            "two_processes_each": without,
            "two_processes_each_kept": kept,
            "bundle_mb": round(sum(path.stat().st_size for path in root.rglob("*") if path.is_file()) / 1e6),
            "kept_mb": round(sum(path.stat().st_size for path in cache.rglob("*") if path.is_file()) / 1e6),
            "rounds": arguments.rounds,
        }
    print(json.dumps(row, indent=1))
    conditions = {
        "what": "loading a float32 graph of random weights in ONNX Runtime, plainly and from BINDERY_CACHE_DIR, fresh processes, in turns",
        "command": "python bench/load_time.py" + (" --quick" if arguments.quick else ""),
        "threads": threads,
        "processor": processor(),
        "onnxruntime": onnxruntime.__version__,
        "tower": config.model_dump(mode="json"),
    }
    out = arguments.out or (None if arguments.quick else RESULT)
    if out is not None:
        out.write_text(json.dumps({**conditions, **row}, indent=1) + "\n")


if __name__ == "__main__":
    main()
