"""What does each precision of an exported graph give and cost beside the same tower in torch eager, for every modality?

ViT-L/14-size towers (text: 12 x 768) on the CPU. Random weights, so the cosines are hopeful; `bindery-export prove` measures a real
bundle. Each way to compute lives in a process of its own, so that its memory is its own; the processes run in turns, so that a
neighbour's load falls on all. Depth and thermal have the image's shape and share its figures. Text is exact in every precision.

`bit_equal`: an item's vector is the same, bit for bit, alone, in a larger batch, and as the last one behind others that are ten times
as loud (other words, for texts). `peak_share`: how much of this machine's float32 matrix product the arithmetic of the tower reaches,
measured in the same run by torch; no float32 way can be faster than it is by more than 1 / share.
Run: python bench/precisions.py [--quick] [--modality image audio video] [--rounds 5]
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import platform
import tempfile
import time
from multiprocessing.connection import Connection
from pathlib import Path
from statistics import median
from typing import Any, Literal

import numpy as np
import onnx_ir as ir
import onnxruntime
import openvino
import torch
from large_towers import QUICK, SAME_SHAPE, TOKENS, TOWERS, inputs_of, processor, resident
from safetensors.torch import load_file, save_file
from torch.utils.flop_counter import FlopCounterMode

from bindery.bundle import Artefact, Parity, TensorInfo
from bindery.decoded import Tensors
from bindery.runtime.processor import computes_bf16
from bindery.vectors import Vectors
from export.onnx_graph import opset, to_onnx
from export.weight_file import WeightFile
from export.weights import store_as
from training.towers.build import TowerConfig, build_tower
from training.towers.package import tower_with_weights

Way = Literal["eager", "exact", "bf16", "int8"]
BATCHES = {"text": (1, 8), "image": (1, 4), "audio": (1, 2), "video": (1, 2)}
MAX_BATCH = 8
ROUNDS = {"audio": 4, "video": 2}
"""At most: a clip takes eager torch more than five seconds."""
SIDE = 2048
"""Of the square matrices whose product is the machine's peak."""
RESULT = Path(__file__).parent / "results" / "precisions.json"


def ways_of(config: TowerConfig) -> list[Way]:
    if config.architecture == "clip_text":
        return ["eager", "exact"]
    return ["eager", "exact", *(["bf16"] if computes_bf16() else []), "int8"]


def save(config: TowerConfig, place: Path) -> None:
    """The tower's weights, its graph with float32 weights, and with int8 ones. In a process of its own, which gives its memory back."""
    torch.manual_seed(0)
    tower = build_tower(config).eval()
    save_file(tower.state_dict(), place / "weights.safetensors")
    example = {name: torch.from_numpy(value) for name, value in inputs_of(tower, 2).items()}
    model = to_onnx(tower, example, {"batch": MAX_BATCH, **({"tokens": 77} if "input_ids" in example else {})})
    WeightFile(place / "model.bin").take(model)
    ir.save(model, place / "model.onnx")
    (place / "opset").write_text(str(opset(model)))
    if "int8" in ways_of(config):
        small = ir.load(place / "model.onnx")
        store_as(small, "int8")
        WeightFile(place / "small.bin").take(small)
        ir.save(small, place / "small.onnx")


class Eager:
    """The peer: the tower as torch runs it."""

    runtime = f"torch {torch.__version__}"

    def __init__(self, place: Path, config: TowerConfig) -> None:
        self._tower = tower_with_weights(config, load_file(place / "weights.safetensors"), "the saved tower")

    def encode(self, tensors: Tensors) -> Vectors:
        with torch.inference_mode():
            vectors: Vectors = self._tower(**{name: torch.from_numpy(value) for name, value in tensors.items()}).numpy()
        return vectors


def opened(way: Way, place: Path, config: TowerConfig, inputs: tuple[TensorInfo, ...], threads: int) -> Any:
    if way == "eager":
        return Eager(place, config)
    artefact = Artefact(
        path="small.onnx" if way == "int8" else "model.onnx",
        precision=way,
        weights="int8" if way == "int8" else "float32",
        opset=int((place / "opset").read_text()),
        inputs=inputs,
        max_batch=MAX_BATCH,
        parity=Parity(reference="measured below", cosine_min=-1, max_abs=2, samples=0),
    )
    path = place / artefact.path
    if way == "exact":
        from bindery.runtime.onnx import OnnxEncoder

        return OnnxEncoder(path, artefact, dimension=config.dimension, device="cpu", provider="CPUExecutionProvider", threads=threads)
    from bindery.runtime.openvino import OpenVinoEncoder

    return OpenVinoEncoder(path, artefact, dimension=config.dimension, threads=threads)


def serve(pipe: Connection, way: Way, place: Path, config: TowerConfig, inputs: tuple[TensorInfo, ...], threads: int) -> None:
    torch.set_num_threads(threads)
    before, started = resident(), time.perf_counter()
    encoder = opened(way, place, config, inputs, threads)
    pipe.send((time.perf_counter() - started, encoder.runtime))
    while (tensors := pipe.recv()) is not None:
        started = time.perf_counter()
        vectors = encoder.encode(tensors)
        pipe.send((time.perf_counter() - started, vectors, resident() - before))


def peaks(threads: int) -> dict[str, float]:
    """Billions of operations a second in one large matrix product of torch, by type; the best of several."""
    torch.set_num_threads(threads)
    found = {}
    for dtype in (torch.float32, torch.bfloat16):
        left = torch.randn(SIDE, SIDE).to(dtype)
        seconds = []
        for _ in range(12):
            started = time.perf_counter()
            torch.mm(left, left)
            seconds.append(time.perf_counter() - started)
        found[str(dtype).removeprefix("torch.")] = round(2 * SIDE**3 / min(seconds) / 1e9, 1)
    return found


def operations(config: TowerConfig, tensors: Tensors) -> int:
    """Additions and multiplications in the tower's matrix products, for these inputs."""
    with torch.device("meta"), FlopCounterMode(display=False) as counter:
        build_tower(config).eval()(**{name: torch.from_numpy(value).to("meta") for name, value in tensors.items()})
    return counter.get_total_flops()


def behind_loud_mates(tensors: Tensors, others: Tensors) -> Tensors:
    """The first item of ``tensors`` as the last one of a batch of quite other items."""
    return {
        name: np.concatenate([others[name][1:] * (1 if value.dtype == np.int64 else 10), value[:1]]).astype(value.dtype)
        for name, value in tensors.items()
    }


def measure(modality: str, config: TowerConfig, rounds: int, threads: int) -> list[dict[str, Any]]:
    context = multiprocessing.get_context("spawn")
    with torch.device("meta"):
        shape = build_tower(config)
    ways, rows = ways_of(config), []
    batches = BATCHES[modality]
    everything, others = inputs_of(shape, max(batches)), inputs_of(shape, max(batches), seed=1)
    with tempfile.TemporaryDirectory() as directory:
        place = Path(directory)
        saving = context.Process(target=save, args=(config, place))
        saving.start()
        saving.join()
        if saving.exitcode != 0:
            raise SystemExit(f"{modality}: the export ended with {saving.exitcode}")
        pipes, loads, processes = {}, {}, []
        for way in ways:
            pipes[way], theirs = context.Pipe()
            processes.append(context.Process(target=serve, args=(theirs, way, place, config, shape.inputs, threads)))
            processes[-1].start()
            loads[way] = pipes[way].recv()

        def run(way: Way, tensors: Tensors) -> tuple[float, Vectors, float]:
            pipes[way].send(tensors)
            answer: tuple[float, Vectors, float] = pipes[way].recv()
            return answer

        alone: dict[Way, Vectors] = {}
        for batch in batches:
            tensors = {name: value[:batch] for name, value in everything.items()}
            work = operations(config, tensors) / batch
            vectors, seconds, memory = {}, {way: [] for way in ways}, {}
            for turn in range(rounds + 1):  # the first one warms up
                for way in ways:
                    took, vectors[way], memory[way] = run(way, tensors)
                    if turn:
                        seconds[way].append(took)
            for way in ways:
                alone.setdefault(way, vectors[way][:1])
                moved = float(np.abs(vectors[way][:1] - alone[way]).max())
                if batch > 1:
                    mates = behind_loud_mates(tensors, others)
                    moved = max(moved, float(np.abs(run(way, mates)[1][-1:] - alone[way]).max()))
                ratios = [a / b for a, b in zip(seconds["eager"], seconds[way], strict=True)]
                speed = batch / median(seconds[way])
                rows.append(
                    {
                        "modality": modality,
                        "precision": way,
                        "runtime": loads[way][1],
                        "batch": batch,
                        "items_per_s": round(speed, 4),
                        "ratio_to_eager": round(median(ratios), 3),
                        "ratio_min_max": [round(min(ratios), 3), round(max(ratios), 3)],
                        "ratio_to_exact": round(median(a / b for a, b in zip(seconds["exact"], seconds[way], strict=True)), 3),
                        "gflops": round(work * speed / 1e9, 1),
                        "cosine_min": float((vectors[way].astype(np.float64) * vectors["eager"]).sum(axis=1).min()),
                        "bit_equal": moved == 0.0 if batch > 1 else None,
                        "moved_by_batch_mates": moved if batch > 1 else None,
                        "load_s": round(loads[way][0], 2),
                        "resident_mb": round(memory[way]),
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
    parser.add_argument("--modality", nargs="*", choices=list(TOWERS), default=list(TOWERS))
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    started = time.perf_counter()
    threads = len(os.sched_getaffinity(0))
    towers = {"image": QUICK} if arguments.quick else {modality: TOWERS[modality] for modality in arguments.modality}
    peak = peaks(threads)
    rows = []
    for modality, config in towers.items():
        rows += measure(modality, config, min(arguments.rounds, ROUNDS.get(modality, arguments.rounds)), threads)
        peak = {dtype: max(peak[dtype], again) for dtype, again in peaks(threads).items()}  # a neighbour may have slowed one of them
    for row in rows:
        row["peak_share"] = round(row.pop("gflops") / peak["float32"], 3)
    conditions = {
        "what": "each precision of an exported graph beside torch eager float32: random weights, a process each, in turns",
        "command": "python bench/precisions.py" + (" --quick" if arguments.quick else ""),
        "threads": threads,
        "processor": processor(),
        "system": platform.system(),
        "torch": torch.__version__,
        "onnxruntime": onnxruntime.__version__,
        "openvino": openvino.__version__.partition("-")[0],
        "text_tokens": TOKENS,
        "matrix_peak_gflops": peak,
        "same_figures": {name: other for name, other in SAME_SHAPE.items() if other in towers},
        "always_exact": ["text"],
        "took_s": round(time.perf_counter() - started),
        "towers": {modality: config.model_dump(mode="json") for modality, config in towers.items()},
    }
    out = arguments.out or (None if arguments.quick else RESULT)
    if out is not None:
        out.parent.mkdir(parents=True, exist_ok=True)
        out.write_text(json.dumps({**conditions, "rows": rows}, indent=1) + "\n")


if __name__ == "__main__":
    main()
