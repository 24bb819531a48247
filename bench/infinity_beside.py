"""Infinity's torch engine in turns with ours: towers of the same shape, texts of the same length in tokens, the same pictures."""

from __future__ import annotations

import base64
import json
import subprocess
from collections.abc import Iterator
from pathlib import Path

from bindery.traffic.mix import WORDS, Parcel

PATH = "/embeddings"
TOKENS = 13  # of one of our texts in the starter's vocabulary, which the large bundle has


def model_for(python: Path, scratch: Path) -> Path:
    """Its directory in ``scratch``; the first time it is made, which takes a minute and 1.7 GB."""
    directory = scratch / "infinity"
    if not (directory / "preprocessor_config.json").is_file():
        maker = Path(__file__).parent / "infinity_model.py"
        subprocess.run([str(python), str(maker), str(directory), *WORDS], check=True)
    return directory


def as_it_asks(drawn: Iterator[Parcel]) -> Iterator[Parcel]:
    """The same requests in Infinity's form."""
    for parcel in drawn:
        if parcel.kind == "text":
            words = json.loads(parcel.body)["inputs"][0].split()[:-1]  # without its number, of which CLIP makes a token a digit
            asked = {"model": "peer", "input": [" ".join((words * 2)[: TOKENS - 2])]}  # its tokenizer adds two
        else:
            data = base64.b64encode(parcel.body).decode()
            asked = {"model": "peer", "input": [f"data:{parcel.content_type};base64,{data}"], "modality": parcel.kind}
        yield Parcel(parcel.kind, "application/json", json.dumps(asked).encode())
