"""What do bf16 and int8 cost in accuracy on real files? Zero-shot top-1 of a copy of a bundle, exact against reduced.

The files are those of a manifest's split, one folder of media a modality as the starter's are (`image/manifest.csv`, `image/val.tar`);
their labels are the names to choose among. It is `bindery-export prove --labelled` on each modality, but without its floors of cosine
and accuracy: `refused` says where they would have refused the artefact.
Run: python bench/accuracy.py --media DIR [--bundle starter] [--precision bf16 int8]
"""

from __future__ import annotations

import argparse
import json
import shutil
import tempfile
import time
from pathlib import Path
from typing import Any

import onnxruntime
import openvino
from large_towers import processor

from bindery.bundle import Parity, find_bundle, open_bundle
from export.errors import ParityError
from export.prove import ProofOrder, Reduced, prove, require
from training.data.manifest import read_manifest
from training.data.shards import Files

RESULT = Path(__file__).parent / "results" / "accuracy.json"


def laid_out(media: Path, modality: str, split: str, place: Path) -> Path | None:
    """A folder a label, as `--labelled` wants them; None where there is no manifest of this modality."""
    manifest = media / modality / "manifest.csv"
    if not manifest.is_file():
        return None
    files, root = Files(), place / modality
    for number, item in enumerate(read_manifest(manifest, split=split)):
        if not item.label:
            continue
        folder = root / item.label
        folder.mkdir(parents=True, exist_ok=True)
        with files.source(item).open() as stream:
            (folder / f"{number:05}{Path(item.path).suffix}").write_bytes(stream.read())
    return root


def below(parity: Parity, floors: ProofOrder, modality: str) -> str | None:
    try:
        require(modality, parity, floors)
    except ParityError as error:
        return str(error)
    return None


def measure(bundle: Path, labelled: dict[str, Path], precision: Reduced) -> list[dict[str, Any]]:
    started = time.perf_counter()
    floors = ProofOrder(precision)  # its defaults
    found = prove(bundle, ProofOrder(precision, labelled=labelled, min_cosine=-1, max_drop=1))
    rows = []
    for modality, parity in found.items():
        if modality not in labelled:
            continue
        exact, reduced = parity.accuracy["exact"], parity.accuracy[precision]
        rows.append(
            {
                "modality": modality,
                "precision": precision,
                "files": parity.samples,
                "labels": sum(folder.is_dir() for folder in labelled[modality].iterdir()),
                "top1_exact": round(exact, 4),
                "top1": round(reduced, 4),
                "change_points": round(100 * (reduced - exact), 2),
                "one_file_is_points": round(100 / parity.samples, 2),
                "cosine_min": parity.cosine_min,
                "cosine_mean": parity.cosine_mean,
                "refused": below(parity, floors, modality),
            }
        )
        print(json.dumps(rows[-1]), flush=True)
    print(f"{precision}: {time.perf_counter() - started:.0f} s", flush=True)
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--media", type=Path, required=True)
    parser.add_argument("--bundle", default="starter")
    parser.add_argument("--split", default="val")
    parser.add_argument("--precision", nargs="*", choices=["bf16", "int8"], default=["bf16", "int8"])
    parser.add_argument("--out", type=Path, default=RESULT)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        copy = shutil.copytree(find_bundle(arguments.bundle), Path(scratch) / "bundle")
        manifest = open_bundle(copy).manifest
        places = {name: laid_out(arguments.media, name, arguments.split, Path(scratch) / "files") for name in manifest.modalities}
        labelled = {name: place for name, place in places.items() if place is not None}
        rows = [row for precision in arguments.precision for row in measure(copy, labelled, precision)]
    everywhere = {
        precision: round(100 * sum((row["top1"] - row["top1_exact"]) * row["files"] for row in chosen) / sum(r["files"] for r in chosen), 3)
        for precision in arguments.precision
        if (chosen := [row for row in rows if row["precision"] == precision])
    }
    document = {
        "what": "zero-shot top-1 of reduced precisions beside exact, on real files",
        "command": f"python bench/accuracy.py --bundle {arguments.bundle} --split {arguments.split}",
        "bundle": {"name": manifest.name, "version": manifest.version, "space": manifest.space},
        "processor": processor(),
        "onnxruntime": onnxruntime.__version__,
        "openvino": openvino.__version__.partition("-")[0],
        "change_points_over_all_files": everywhere,
        "rows": rows,
    }
    arguments.out.write_text(json.dumps(document, indent=1) + "\n")


if __name__ == "__main__":
    main()
