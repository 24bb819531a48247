"""`bindery` with faults that a file or a graph cannot bring about; texts ask for them. Of the tests alone: nothing of it is in the product.

    python -m tests.e2e.faulty serve ...

It is also less patient than the product: what hangs is noticed after one second and given up after two; who reads nothing has one.
"""

from __future__ import annotations

import os
import signal
import threading
import time
from pathlib import Path

from bindery.cli.main import main
from bindery.decoded import Prepared, Tensors
from bindery.engine import batching, supervision
from bindery.prepare.tokens import TextTokenizer
from bindery.runtime.onnx import OnnxEncoder
from bindery.vectors import Vectors
from service.fronts import processes
from tests.e2e.asking import CRASHES, DEAF, GATE, HELD, LOOP_DIES, TOKENIZER_HANGS, TOKENIZER_PANICS, TOKENIZER_RAISES
from tests.toybundle import text_ids

processes.UNREAD_S = 1.0
supervision.STUCK_S, supervision.GIVE_UP_TIMES, supervision.LOOK_S = 1.0, 2.0, 0.1
_MARKS = {mark: text_ids(mark)[0] for mark in (HELD, DEAF, LOOP_DIES, CRASHES)}


class Panic(BaseException):
    """As what Rust throws into Python when it panics: no `Exception`."""


_tokenize, _encode, _alike = TextTokenizer.encode, OnnxEncoder.encode, batching.alike


def tokenize(self: TextTokenizer, text: str) -> Prepared:
    if TOKENIZER_RAISES in text:
        raise RuntimeError("as was asked for")
    if TOKENIZER_PANICS in text:
        raise Panic("as was asked for")
    if TOKENIZER_HANGS in text:
        threading.Event().wait(600)
    return _tokenize(self, text)


def encode(self: OnnxEncoder, tensors: Tensors) -> Vectors:
    if _has(tensors, CRASHES):
        os.kill(os.getpid(), signal.SIGKILL)
    if _has(tensors, DEAF):
        threading.Event().wait(600)
    while _has(tensors, HELD) and Path(os.environ[GATE]).exists():  # noqa: TID251 - the tests' own
        time.sleep(0.01)
    return _encode(self, tensors)


def alike(items, length):  # type: ignore[no-untyped-def]  # as `bindery.engine.padding.alike`
    if any(_has(item.tensors, LOOP_DIES) for item in items):
        raise RuntimeError("as was asked for")
    return _alike(items, length)


def _has(tensors: Tensors, mark: str) -> bool:
    return "input_ids" in tensors and bool((tensors["input_ids"] == _MARKS[mark]).any())


TextTokenizer.encode, OnnxEncoder.encode, batching.alike = tokenize, encode, alike  # type: ignore[method-assign]

if __name__ == "__main__":
    main()
