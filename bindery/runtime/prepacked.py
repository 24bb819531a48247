"""Graphs as ONNX Runtime would have them after loading: optimised, with weights in the order that this processor multiplies in.

Loading one skips that work and maps the weights from the file, so that processes share them; vectors are the same to the bit.
ONNX Runtime writes some of these files so that running them ends the process (1.31: blocks off the 64-byte border that its
kernels take for granted). So a file is kept only after a process of its own has run it and given the same vectors.
"""

from __future__ import annotations

import json
import logging
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort

from bindery.bundle import Artefact, Bundle, TensorInfo
from bindery.decoded import Tensors
from bindery.known_answer import stripes
from bindery.runtime.machine_cache import Facts, MachineCache, graph_identity
from bindery.runtime.onnx import session_options
from bindery.runtime.processor import instructions, processor_name

GRAPH, WEIGHTS = "model.onnx", "model.bin"
BORDER = 64
"""Bytes: what every block of weights must start at a multiple of."""

_INLINE = (1 << 10, 1 << 18, 1 << 22)
"""Bytes below which a weight stays inside the graph, tried in turn: odd-sized ones outside put all that follow off the border."""

_BLOCKS = (re.compile(rb"\|(\d+);\d+;"), re.compile(rb"\x0a\x06offset\x12.(\d+)", re.DOTALL))
_PROOF_S = 300.0
_CHILD = """
import json, sys
sys.path[:] = json.loads(sys.argv[1])
from bindery.runtime.prepacked import answer_to_file
answer_to_file(*sys.argv[2:])
"""
log = logging.getLogger(__name__)


class NotFit(Exception):
    """What ONNX Runtime saved cannot be relied on."""


class Prepacked:
    """The entry of one artefact of a bundle in a cache folder."""

    def __init__(self, bundle: Bundle, artefact: Artefact, cache_dir: Path) -> None:
        self._source = bundle.path(artefact.path)
        self._inputs = artefact.inputs
        self._cache = MachineCache(cache_dir, "prepacked")
        self._facts: Facts = {
            "graph": graph_identity(bundle, artefact),
            "onnxruntime": f"{ort.__version__} {ort.get_build_info()}",
            "processor": processor_name(),
            "instructions": " ".join(sorted(instructions())),
        }

    def path(self) -> Path | None:
        """Of the graph made ready, made now if need be. None, with a warning, when it cannot be made; then the bundle's own serves."""
        found = self._cache.find(self._facts)
        if found is None:
            try:
                found = self._cache.make(self._facts, self._save)
            except Exception as error:  # noqa: BLE001 - no disk, no rights, a graph that ONNX Runtime will not save: serving goes on
                log.warning("%s could not be kept ready in %s: %s", self._source, self._cache.root, error)
                return None
        return found / GRAPH

    def discard(self) -> None:
        self._cache.discard(self._facts)

    def _save(self, place: Path) -> None:
        log.info("making %s ready for this processor in %s; the next start will be faster", self._source, self._cache.root)
        for inline in _INLINE:
            for left in place.iterdir():
                left.unlink()
            session = _saved(self._source, place, inline)
            if aligned(place / GRAPH):
                _prove(session, self._inputs, place)
                return
        raise NotFit(f"ONNX Runtime {ort.__version__} saves it with weights off the {BORDER}-byte border")


def _saved(source: Path, place: Path, inline: int) -> ort.InferenceSession:
    options = session_options(threads=1)
    options.optimized_model_filepath = str(place / GRAPH)
    options.add_session_config_entry("session.optimized_model_external_initializers_file_name", WEIGHTS)
    options.add_session_config_entry("session.optimized_model_external_initializers_min_size_in_bytes", str(inline))
    options.add_session_config_entry("session.save_external_prepacked_constant_initializers", "1")
    return ort.InferenceSession(str(source), options, providers=["CPUExecutionProvider"])


def aligned(graph: Path) -> bool:
    """Whether each block of weights that the graph names outside itself starts at the border. Read from its bytes: no protobuf here."""
    raw = graph.read_bytes()
    return all(int(found) % BORDER == 0 for block in _BLOCKS for found in block.findall(raw))


def _prove(session: ort.InferenceSession, inputs: tuple[TensorInfo, ...], place: Path) -> None:
    """Raises `NotFit` unless the saved graph gives ``session``'s vectors, to the bit, in another process."""
    questions, answers = place / "questions.npz", place / "answers.npz"
    asked = list(_questions(inputs))
    arrays: dict[str, Any] = {f"{index}.{name}": array for index, one in enumerate(asked) for name, array in one.items()}
    np.savez(questions, **arrays)
    command = [sys.executable, "-c", _CHILD, json.dumps(sys.path), str(place / GRAPH), str(questions), str(answers)]
    child = subprocess.run(command, capture_output=True, check=False, timeout=_PROOF_S)
    if child.returncode != 0:
        raise NotFit(f"a process that ran what ONNX Runtime {ort.__version__} saved ended with {child.returncode}")
    with np.load(answers) as given:
        for index, one in enumerate(asked):
            if not np.array_equal(given[str(index)], session.run(None, one)[0]):
                raise NotFit(f"what ONNX Runtime {ort.__version__} saved gives other vectors")
    questions.unlink()
    answers.unlink()


def answer_to_file(graph: str, questions: str, answers: str) -> None:
    """The child's part."""
    options = session_options(threads=1)
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = ort.InferenceSession(graph, options, providers=["CPUExecutionProvider"])
    given: dict[str, Any] = {}
    asked: dict[str, Tensors] = {}
    with np.load(questions) as found:
        for key in found.files:
            index, _, name = key.partition(".")
            asked.setdefault(index, {})[name] = found[key]
    for index, tensors in asked.items():
        given[index] = session.run(None, tensors)[0]
    np.savez(answers, **given)


def _questions(inputs: tuple[TensorInfo, ...]) -> Iterator[Tensors]:
    """Batches of one and two items: striped pictures, or texts of two lengths."""
    for batch, free in ((1, 3), (2, 12)):
        shapes = {one.name: (batch, *(side if isinstance(side, int) else free for side in one.shape[1:])) for one in inputs}
        yield {one.name: stripes(shapes[one.name]) if one.dtype == "float32" else np.ones(shapes[one.name], np.int64) for one in inputs}
