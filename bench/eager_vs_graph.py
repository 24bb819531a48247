"""How fast is the exported graph in ONNX Runtime beside the same tower in torch eager, for every modality?

ViT-L/14-size towers (text: 12 x 768) with random weights, float32, CPU. The two are run in turns, so that a neighbour's
load falls on both; the figure is the ratio. Run: python bench/eager_vs_graph.py [--modality image ...] [--rounds 3]
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import re
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import onnx_ir
import onnxruntime
import torch

from bindery.bundle import Artefact, Parity
from bindery.decoded import Tensors
from bindery.runtime.onnx import OnnxEncoder
from export.onnx_graph import opset, to_onnx
from export.weight_file import WeightFile
from training.towers.build import TowerConfig, build_tower
from training.towers.clip_text import ClipTextConfig
from training.towers.tower import Tower
from training.towers.vit import VitConfig

LARGE: dict[str, Any] = {"width": 1024, "layers": 24, "heads": 16, "mlp_width": 4096, "dimension": 768}
TOWERS: dict[str, TowerConfig] = {
    "text": ClipTextConfig(width=768, layers=12, heads=12, mlp_width=3072, dimension=768),
    "image": VitConfig(**LARGE),
    "depth": VitConfig(**LARGE),
    "thermal": VitConfig(**LARGE),
    "audio": VitConfig(**LARGE, size=(112, 1036)),
    "video": VitConfig(**LARGE, frames=8, temporal_attention=True),
}
TOKENS = 16  # a usual caption; texts are trimmed to the longest of their batch
BATCHES = {"text": (1, 8), "image": (1, 4)}  # the others: 1
RESULT = Path(__file__).parent / "results" / "eager_vs_graph.json"


def inputs_of(tower: Tower, batch: int) -> Tensors:
    rng = np.random.default_rng(0)
    sizes = {"batch": batch, "tokens": TOKENS}
    made: Tensors = {}
    for info in tower.inputs:
        shape = tuple(sizes[axis] if isinstance(axis, str) else axis for axis in info.shape)
        made[info.name] = rng.integers(1, 49407, shape) if info.dtype == "int64" else rng.standard_normal(shape).astype(np.float32)
    return made


def graph_of(tower: Tower, directory: Path, threads: int) -> OnnxEncoder:
    example = {name: torch.from_numpy(value) for name, value in inputs_of(tower, 2).items()}
    model = to_onnx(tower, example, {"batch": 8, **({"tokens": 77} if "input_ids" in example else {})})
    WeightFile(directory / "weights.bin").take(model)
    onnx_ir.save(model, directory / "model.onnx")
    artefact = Artefact(
        path="model.onnx",
        opset=opset(model),
        inputs=tower.inputs,
        max_batch=8,
        parity=Parity(reference="measured below", cosine_min=-1, max_abs=2, samples=0),
    )
    path = directory / "model.onnx"
    return OnnxEncoder(path, artefact, dimension=tower.dimension, device="cpu", provider="CPUExecutionProvider", threads=threads)


def seconds(run: Callable[[], object]) -> float:
    started = time.perf_counter()
    run()
    return time.perf_counter() - started


def measure(modality: str, rounds: int, threads: int) -> list[dict[str, Any]]:
    torch.manual_seed(0)
    tower = build_tower(TOWERS[modality]).eval()
    rows = []
    with tempfile.TemporaryDirectory() as directory, torch.no_grad():
        graph = graph_of(tower, Path(directory), threads)
        for batch in BATCHES.get(modality, (1,)):
            arrays = inputs_of(tower, batch)
            tensors = {name: torch.from_numpy(value) for name, value in arrays.items()}
            eager_vectors, graph_vectors = tower(**tensors).numpy(), graph.encode(arrays)  # warm, and compared
            eager, compiled = partial(tower, **tensors), partial(graph.encode, arrays)
            pairs = [(seconds(eager), seconds(compiled)) for _ in range(rounds)]
            rows.append(
                {
                    "modality": modality,
                    "batch": batch,
                    "eager_items_per_s": round(batch / median(e for e, _ in pairs), 4),
                    "graph_items_per_s": round(batch / median(g for _, g in pairs), 4),
                    "ratio": round(median(e / g for e, g in pairs), 3),
                    "ratio_min_max": [round(f(e / g for e, g in pairs), 3) for f in (min, max)],
                    "cosine_min": float((eager_vectors * graph_vectors).sum(axis=1).min()),
                    "max_abs": float(np.abs(eager_vectors - graph_vectors).max()),
                    "rounds": rounds,
                }
            )
            print(json.dumps(rows[-1]), flush=True)
    return rows


def processor() -> str:
    """The ratio depends on whose matrix library knows this processor, so it is named."""
    names = re.findall(r"model name\s*: (.*)", Path("/proc/cpuinfo").read_text())
    features = [name for name in ("avx2", "avx512f", "amx_tile") if name in Path("/proc/cpuinfo").read_text()]
    return f"{names[0] if names else platform.machine()} ({', '.join(features)})"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--modality", nargs="*", choices=list(TOWERS), default=list(TOWERS))
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--out", type=Path, default=RESULT)
    arguments = parser.parse_args()
    threads = len(os.sched_getaffinity(0))
    torch.set_num_threads(threads)
    rows = [row for modality in arguments.modality for row in measure(modality, arguments.rounds, threads)]
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    conditions = {
        "what": "torch eager float32 against the exported graph in ONNX Runtime float32, random weights, in turns",
        "command": "python bench/eager_vs_graph.py",
        "threads": threads,
        "processor": processor(),
        "torch": torch.__version__,
        "onnxruntime": onnxruntime.__version__,
        "text_tokens": TOKENS,
        "towers": {modality: TOWERS[modality].model_dump(mode="json") for modality in arguments.modality},
    }
    arguments.out.write_text(json.dumps({**conditions, "rows": rows}, indent=1) + "\n")


if __name__ == "__main__":
    main()
