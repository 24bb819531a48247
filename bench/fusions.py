"""What do ONNX Runtime's fusions do to an exported graph, and what would fused attention give beside them?

Four ways to run the same ViT-L/14-size graph (random weights, float32, CPU), in turns in one process: `off` (as exported), `basic`
(constants folded), `all` (what we serve: biases, GELU and transposes fused when the graph is loaded) and `attention` (exported in
opset 23, where a whole attention is one operator, then `all`).
`cpu_ratio_to_off` is of processor time, which neighbours disturb less.
Run: python bench/fusions.py [--quick] [--modality image text] [--rounds 5]
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
import time
from collections import Counter
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime as ort
import torch
from large_towers import QUICK, TOWERS, inputs_of, processor

from bindery.runtime.onnx import session_options
from export.onnx_graph import opset, to_onnx
from export.weight_file import WeightFile
from training.towers.build import TowerConfig, build_tower

LEVELS = {
    "off": ort.GraphOptimizationLevel.ORT_DISABLE_ALL,
    "basic": ort.GraphOptimizationLevel.ORT_ENABLE_BASIC,
    "all": ort.GraphOptimizationLevel.ORT_ENABLE_ALL,
    "attention": ort.GraphOptimizationLevel.ORT_ENABLE_ALL,
}
FUSED = ("Attention", "MultiHeadAttention", "LayerNormalization", "SkipLayerNormalization", "Gelu", "BiasGelu", "QuickGelu", "FusedMatMul")
ATTENTION = 23
"""The first opset that has attention as an operator."""

RESULT = Path(__file__).parent / "results" / "fusions.json"


def _version(way: str) -> int | None:
    return ATTENTION if way == "attention" else None


def session(path: Path, way: str, threads: int, kept: Path) -> ort.InferenceSession:
    options = session_options(threads)
    options.graph_optimization_level = LEVELS[way]
    options.optimized_model_filepath = str(kept)  # to count what is in it
    options.add_session_config_entry("session.optimized_model_external_initializers_file_name", f"{kept.name}.bin")
    return ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


def save(config: TowerConfig, place: Path, version: int | None) -> int:
    """Export to ``place``. Returns the opset."""
    torch.manual_seed(0)
    tower = build_tower(config).eval()
    place.mkdir()
    example = {name: torch.from_numpy(value) for name, value in inputs_of(tower, 2).items()}
    model = to_onnx(tower, example, {"batch": 8, **({"tokens": 77} if "input_ids" in example else {})}, version=version)
    WeightFile(place / "weights.bin").take(model)
    ir.save(model, place / "model.onnx")
    return opset(model)


def measure(modality: str, config: TowerConfig, rounds: int, threads: int) -> list[dict[str, Any]]:
    rows = []
    with tempfile.TemporaryDirectory() as directory:
        place = Path(directory)
        opsets = {version: save(config, place / str(version), version) for version in (None, ATTENTION)}
        sessions, operators = {}, {}
        for way in LEVELS:
            source = place / str(_version(way)) / "model.onnx"
            sessions[way] = session(source, way, threads, place / f"{way}.onnx")
            nodes = onnx.load(place / f"{way}.onnx", load_external_data=False).graph.node
            operators[way] = Counter(node.op_type for node in nodes)
        tower = build_tower(config)
        for batch in (1, 4):
            feed = inputs_of(tower, batch)
            vectors, seconds, work = {}, {way: [] for way in LEVELS}, {way: [] for way in LEVELS}
            for turn in range(rounds + 1):  # the first one warms up
                for way, one in sessions.items():
                    started, began = time.perf_counter(), time.process_time()
                    (vectors[way],) = one.run(None, feed)
                    if turn:
                        seconds[way].append(time.perf_counter() - started)
                        work[way].append(time.process_time() - began)
            for way in LEVELS:
                rows.append(
                    {
                        "modality": modality,
                        "way": way,
                        "batch": batch,
                        "ms_per_item": round(1000 * median(seconds[way]) / batch, 2),
                        "ratio_to_off": round(median(a / b for a, b in zip(seconds["off"], seconds[way], strict=True)), 3),
                        "cpu_ratio_to_off": round(median(a / b for a, b in zip(work["off"], work[way], strict=True)), 3),
                        "cosine_min": float((vectors[way].astype(np.float64) * vectors["off"]).sum(axis=1).min()),
                        "nodes": operators[way].total(),
                        "fused": {name: operators[way][name] for name in FUSED if operators[way][name]},
                        "opset": opsets[_version(way)],
                        "rounds": rounds,
                    }
                )
                print(json.dumps(rows[-1]), flush=True)
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="a small tower (384 wide, 6 layers); writes nothing unless --out is given")
    parser.add_argument("--modality", nargs="*", choices=["image", "text"], default=["image", "text"])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    threads = len(os.sched_getaffinity(0))
    towers = {"image": QUICK} if arguments.quick else {modality: TOWERS[modality] for modality in arguments.modality}
    rows = [row for modality, config in towers.items() for row in measure(modality, config, arguments.rounds, threads)]
    conditions = {
        "what": "one exported graph with and without ONNX Runtime's fusions, random weights, float32, in turns",
        "command": "python bench/fusions.py" + (" --quick" if arguments.quick else ""),
        "threads": threads,
        "processor": processor(),
        "onnxruntime": ort.__version__,
        "towers": {modality: config.model_dump(mode="json") for modality, config in towers.items()},
    }
    out = arguments.out or (None if arguments.quick else RESULT)
    if out is not None:
        out.write_text(json.dumps({**conditions, "rows": rows}, indent=1) + "\n")


if __name__ == "__main__":
    main()
