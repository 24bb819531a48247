"""The one place for settings: `BINDERY_*` in the environment, or arguments; read once, at the outermost edge."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from pydantic import AliasChoices, Field, SecretStr
from pydantic_settings import BaseSettings, SettingsConfigDict

from bindery.bundle import Precision
from bindery.keys import Key
from bindery.limits import MIB, Limits


class Settings(BaseSettings):
    """Everything an operator can change. An unknown field given in code is an error; nested: `BINDERY_LIMITS__PIXELS`."""

    model_config = SettingsConfigDict(
        env_prefix="BINDERY_", env_nested_delimiter="__", frozen=True, extra="forbid", hide_input_in_errors=True, populate_by_name=True
    )

    bundle: str = Field("starter", description="name or directory of the bundle to serve; several with commas, the first is the default")
    bundles_dir: Path | None = Field(None, description="where bundles are looked up by name, before the packaged ones")
    host: str = Field("127.0.0.1", description="address to listen on")
    port: int = Field(8000, ge=0, le=65535, description="port to listen on")
    http_workers: int = Field(1, gt=0, le=64, description="HTTP processes in front of the engine's own; 1: one process does both")
    data_dir: Path = Field(Path("data"), description="collections and label sets live here")
    store: Literal["local", "milvus"] = Field("local", description="where collections and label sets are: in data_dir, or in a Milvus")
    milvus_uri: str = Field("http://127.0.0.1:19530", description="the Milvus, with its database as in http://HOST:19530/DATABASE")
    milvus_token: SecretStr | None = Field(None, description="USER:PASSWORD or an API key for it")
    milvus_timeout_seconds: float = Field(10.0, gt=0, description="how long one call to Milvus may take")
    milvus_index: str = Field("FLAT", pattern="[A-Z0-9_]+", description="Milvus' index type of collections made from now on; FLAT is exact")
    milvus_index_params: dict[str, Any] = Field({}, description="parameters of building that index, as a JSON object")
    milvus_search_params: dict[str, Any] = Field({}, description="parameters of searching it, as a JSON object")
    device: Literal["auto", "cpu", "cuda", "tensorrt"] = Field(
        "auto", description="auto takes a GPU when the runtime sees one; cuda and tensorrt fail without one"
    )
    precision: Precision = Field("exact", description="which artefacts to run")
    threads: int | None = Field(None, gt=0, description="threads of one graph run; default: all cores but those kept for decoding")
    decode_workers: int = Field(2, gt=0, le=256, description="decoder processes")
    max_batch: int = Field(16, gt=0, description="most items of one graph run")
    cache_bytes: int = Field(64 * MIB, ge=0, description="vectors kept by their input's content, in bytes (0: none)")
    cache_dir: Path | None = Field(
        None, description="graphs made ready for this machine are kept here, for faster starts; default: nowhere"
    )
    canary_seconds: float = Field(60.0, ge=0, description="how long after a check of one graph's canary the next is due, when idle")
    models_memory_bytes: int | None = Field(
        None, gt=0, description="what the loaded models may take together, by an estimate from their files; default: no bound"
    )
    drain_seconds: float = Field(20.0, ge=0, description="how long a stopping server finishes what it has accepted")
    body_floor_bytes_per_s: int = Field(4096, ge=0, description="a body slower than this over ten seconds is cut (0: never)")
    cors_origins: tuple[str, ...] = Field((), description="origins that browsers may call from; none by default")
    keys_file: Path | None = Field(None, description="TOML file of API keys, read again when it changes; see `bindery keys`")
    keys: tuple[Key, ...] = Field((), description="API keys as a JSON list, as rows of the file; without any, no key is asked for")
    metrics_open: bool = Field(True, description="whether /metrics answers without a key; else it takes a key with the scope read")
    address_requests_per_minute: int | None = Field(None, gt=0, description="of one client address, when no keys are set")
    address_inflight: int | None = Field(None, gt=0, description="requests at the same time from one client address, when no keys are set")
    url_inputs: Literal["off", "https", "http_and_https"] = Field("off", description='whether the server fetches {"url": ...} inputs')
    url_hosts: tuple[str, ...] = Field((), description="hosts to fetch from, `*.name` for all below it; without any, every public host")
    recall_target: float = Field(
        0.98, gt=0, lt=1, description="share of the ten true neighbours that a search of a large collection is to find"
    )
    search_device: Literal["auto", "cpu", "gpu"] = Field(
        "auto", description="where sealed segments are scanned; auto: on a GPU when the installed FAISS sees one"
    )
    job_roots: tuple[str, ...] = Field((), description="folders and s3:// prefixes that `POST /v1/jobs` may index; without any, none")
    log_level: Literal["debug", "info", "warning", "error"] = Field("info", description="the least severe lines that are logged")
    log_json: bool = Field(False, description="one JSON object a line instead of readable text")
    otlp_endpoint: str | None = Field(
        None,
        validation_alias=AliasChoices("BINDERY_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT"),
        description="where traces go, OTLP over HTTP (`http://collector:4318`); OTEL_EXPORTER_OTLP_ENDPOINT says it too",
    )
    limits: Limits = Limits()

    def bundle_names(self) -> tuple[str, ...]:
        """Names or directories, the default one first."""
        return tuple(name.strip() for name in self.bundle.split(","))

    def bundle_places(self) -> tuple[Path, ...]:
        return () if self.bundles_dir is None else (self.bundles_dir,)
