"""What do OpenVINO's bf16 and int8 give and cost beside ONNX Runtime float32, on graphs of ViT size?

Random weights, so the cosines are hopeful; `bindery-export prove` measures a real bundle. Each precision lives in a process of
its own, so that its memory is its own; the processes run in turns, so that a neighbour's load falls on all.
Run: python bench/precisions.py [--quick] [--modality image audio video] [--rounds 5]
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
import openvino
import torch
from eager_vs_graph import TOWERS, inputs_of, processor

from bindery.bundle import Artefact, Parity
from bindery.runtime.encoder import Encoder
from export.onnx_graph import opset, to_onnx
from export.weight_file import WeightFile
from export.weights import store_as
from training.towers.build import TowerConfig, build_tower
from training.towers.vit import VitConfig

QUICK: TowerConfig = VitConfig(width=384, layers=6, heads=6, mlp_width=1536, dimension=384)
PRECISIONS = ("exact", "bf16", "int8")
BATCHES = (1, 4)
RESULT = Path(__file__).parent / "results" / "precisions.json"


def save(config: TowerConfig, place: Path) -> tuple[dict[str, Any], list[Artefact]]:
    """The graph with float32 weights and with int8 ones. Gives inputs of the largest batch, and one artefact a precision."""
    torch.manual_seed(0)
    tower = build_tower(config).eval()
    arrays = inputs_of(tower, max(BATCHES))
    example = {name: torch.from_numpy(value[:2]) for name, value in arrays.items()}
    for name, weights in (("model", "float32"), ("small", "int8")):
        model = to_onnx(tower, example, {"batch": 8})
        store_as(model, weights)
        WeightFile(place / f"{name}.bin").take(model)
        ir.save(model, place / f"{name}.onnx")
    artefacts = [
        Artefact(
            path="small.onnx" if precision == "int8" else "model.onnx",
            precision=precision,
            weights="int8" if precision == "int8" else "float32",
            opset=opset(model),
            inputs=tower.inputs,
            max_batch=8,
            parity=Parity(reference="measured below", cosine_min=-1, max_abs=2, samples=0),
        )
        for precision in PRECISIONS
    ]
    return arrays, artefacts


def opened(place: Path, artefact: Artefact, dimension: int, threads: int) -> Encoder:
    path = place / artefact.path
    if artefact.precision == "exact":
        from bindery.runtime.onnx import OnnxEncoder

        return OnnxEncoder(path, artefact, dimension=dimension, device="cpu", provider="CPUExecutionProvider", threads=threads)
    from bindery.runtime.openvino import OpenVinoEncoder

    return OpenVinoEncoder(path, artefact, dimension=dimension, threads=threads)


def serve(pipe: Connection, place: Path, artefact: Artefact, dimension: int, threads: int) -> None:
    before = resident()
    started = time.perf_counter()
    encoder = opened(place, artefact, dimension, threads)
    pipe.send({"load_s": time.perf_counter() - started, "runtime": encoder.runtime})
    while (tensors := pipe.recv()) is not None:
        started = time.perf_counter()
        vectors = encoder.encode(tensors)
        pipe.send((time.perf_counter() - started, vectors, resident() - before))


def resident() -> float:
    """MB of this process in memory."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e6


def measure(modality: str, config: TowerConfig, rounds: int, threads: int) -> list[dict[str, Any]]:
    context = multiprocessing.get_context("spawn")
    rows = []
    with tempfile.TemporaryDirectory() as directory:
        place = Path(directory)
        arrays, artefacts = save(config, place)
        pipes: dict[str, Connection] = {}
        loads: dict[str, dict[str, Any]] = {}
        processes = []
        for artefact in artefacts:
            mine, theirs = context.Pipe()
            processes.append(context.Process(target=serve, args=(theirs, place, artefact, config.dimension, threads)))
            processes[-1].start()
            loads[artefact.precision], pipes[artefact.precision] = mine.recv(), mine
        alone: dict[str, np.ndarray] = {}
        for batch in BATCHES:
            tensors = {name: value[:batch] for name, value in arrays.items()}
            vectors, seconds, memory = {}, {precision: [] for precision in PRECISIONS}, {}
            for turn in range(rounds + 1):  # the first one warms up
                for precision, pipe in pipes.items():
                    pipe.send(tensors)
                    took, vectors[precision], memory[precision] = pipe.recv()
                    if turn:
                        seconds[precision].append(took)
            for precision in PRECISIONS:
                alone.setdefault(precision, vectors[precision][:1])
                rows.append(
                    {
                        "modality": modality,
                        "precision": precision,
                        "runtime": loads[precision]["runtime"],
                        "batch": batch,
                        "ms_per_item": round(1000 * median(seconds[precision]) / batch, 2),
                        "ratio_to_exact": round(median(e / s for e, s in zip(seconds["exact"], seconds[precision], strict=True)), 3),
                        "cosine_min": float((vectors[precision].astype(np.float64) * vectors["exact"]).sum(axis=1).min()),
                        "moved_by_batch_mates": float(np.abs(vectors[precision][:1] - alone[precision]).max()),
                        "load_s": round(loads[precision]["load_s"], 2),
                        "resident_mb": round(memory[precision]),
                        "rounds": rounds,
                    }
                )
                print(json.dumps(rows[-1]), flush=True)
        for pipe in pipes.values():
            pipe.send(None)
        for process in processes:
            process.join()
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="a small tower (384 wide, 6 layers); writes nothing unless --out is given")
    parser.add_argument("--modality", nargs="*", choices=["image", "depth", "thermal", "audio", "video"], default=["image"])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    threads = len(os.sched_getaffinity(0))
    towers = {"image": QUICK} if arguments.quick else {modality: TOWERS[modality] for modality in arguments.modality}
    rows = [row for modality, config in towers.items() for row in measure(modality, config, arguments.rounds, threads)]
    conditions = {
        "what": "OpenVINO bf16 and int8 weights against ONNX Runtime float32: one graph, random weights, a process each, in turns",
        "command": "python bench/precisions.py" + (" --quick" if arguments.quick else ""),
        "threads": threads,
        "processor": processor(),
        "onnxruntime": onnxruntime.__version__,
        "openvino": openvino.__version__.partition("-")[0],
        "towers": {modality: config.model_dump(mode="json") for modality, config in towers.items()},
    }
    out = arguments.out or (None if arguments.quick else RESULT)
    if out is not None:
        out.parent.mkdir(parents=True, exist_ok=True)
        out.write_text(json.dumps({**conditions, "rows": rows}, indent=1) + "\n")


if __name__ == "__main__":
    main()
