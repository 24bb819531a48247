"""The peer: what one writes in an afternoon. FastAPI, torch, one lock around the model, one item a request.

It has the same towers with the same weights as the large bundle, decodes and prepares with the same functions as bindery, and
lets torch use all cores. It validates nothing and bounds nothing. Run: python bench/torch_peer.py image text --port 8001
"""

from __future__ import annotations

import argparse
import threading
from typing import Any

import torch
import uvicorn
from fastapi import FastAPI, Request
from large_bundle import SPECS, TOKENIZER, large_tower
from starlette.concurrency import run_in_threadpool

from bindery.kinds import KINDS, parse_options
from bindery.limits import Limits
from bindery.media.source import Source
from bindery.prepare.tokens import TextTokenizer
from bindery.spec import TextSpec


class Model:
    def __init__(self, modality: str) -> None:
        self.spec = SPECS[modality]
        self.tower = large_tower(modality)
        self.lock = threading.Lock()
        self.tokenizer = TextTokenizer(TOKENIZER, self.spec) if isinstance(self.spec, TextSpec) else None

    def embed(self, body: bytes) -> list[float]:
        if self.tokenizer is not None:
            tensors = self.tokenizer.encode(body.decode()).tensors
        else:
            prepare = KINDS[self.spec.kind].prepare
            assert prepare is not None
            tensors = prepare(Source.of(body), self.spec, parse_options(self.spec.kind, {}), Limits()).tensors
        inputs = {name: torch.from_numpy(array)[None] for name, array in tensors.items()}
        with self.lock, torch.inference_mode():
            vector: list[float] = self.tower(**inputs)[0].tolist()
        return vector


def application(modalities: list[str]) -> FastAPI:
    app, models = FastAPI(), {modality: Model(modality) for modality in modalities}

    @app.get("/readyz")
    def ready() -> dict[str, bool]:
        return {"ready": True}

    @app.post("/v1/embed/{modality}")
    async def embed(modality: str, request: Request) -> dict[str, Any]:
        if modality == "text":
            body = (await request.json())["inputs"][0].encode()
        else:
            body = await request.body()
        return {"embedding": await run_in_threadpool(models[modality].embed, body)}

    return app


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("modalities", nargs="+", choices=sorted(SPECS))
    parser.add_argument("--port", type=int, required=True)
    arguments = parser.parse_args()
    uvicorn.run(application(arguments.modalities), port=arguments.port, log_level="error", access_log=False)
