"""`bindery embed`: files or texts to vectors, as JSON, `.npy` or Parquet."""

from __future__ import annotations

import io
import json
from collections.abc import Mapping, Sequence
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from bindery.cli.console import FAILED, complain, exit_code, note, write_bytes
from bindery.cli.options import Bundle, Device, Options, Precision, Threads, open_model, parse_pairs, settings_of
from bindery.errors import BinderyError, InvalidParameter

if TYPE_CHECKING:
    from bindery.embedder import Embedder
    from bindery.settings import Settings
    from bindery.vectors import Vectors

    Results = Sequence[Vectors | BinderyError]


class Format(StrEnum):
    JSON = "json"
    NPY = "npy"
    PARQUET = "parquet"


def embed(
    inputs: Annotated[list[str], typer.Argument(help="Files; with a text modality: texts. Without --modality: one source, as of index.")],
    modality: Annotated[str | None, typer.Option("--modality", help="What the inputs are: a modality of the bundle.")] = None,
    bundle: Bundle = None,
    format: Annotated[Format | None, typer.Option("--format", help="[default: by the suffix of --out, or json]")] = None,
    out: Annotated[Path | None, typer.Option("--out", help="Write to this file instead of stdout; of a source: a folder.")] = None,
    option: Options = None,
    include: Annotated[
        list[str] | None, typer.Option("--include", metavar="GLOB", help="Of a source: only such files. Repeatable.")
    ] = None,
    rule: Annotated[
        list[str] | None, typer.Option("--rule", metavar="GLOB=MODALITY", help='Of a source: e.g. "depth/**=depth". Repeatable.')
    ] = None,
    field: Annotated[
        list[str] | None, typer.Option("--field", metavar="NAME=TYPE", help="Of a source: a metadata field to declare. Repeatable.")
    ] = None,
    prune: Annotated[bool, typer.Option("--prune", help="Of a source: remove what is not there any more.")] = False,
    force: Annotated[bool, typer.Option("--force", help="Of a source: prune also when more than half would go.")] = False,
    retry_failed: Annotated[bool, typer.Option("--retry-failed", help="Of a source: only the files that failed in the last run.")] = False,
    max_error_rate: Annotated[
        float, typer.Option("--max-error-rate", min=0, max=1, help="Of a source: give up when a larger share of its files fails.")
    ] = 1.0,
    device: Device = None,
    precision: Precision = None,
    threads: Threads = None,
) -> None:
    """Turn files or texts into vectors of unit length. Inputs that cannot be read are reported and counted (exit code 3).

    A whole source (a folder, a manifest, tars, s3://...) becomes Parquet shards in the folder --out. It may be interrupted at any
    time: run it again, and it goes on; run later, it embeds only what is new or changed.
    """
    settings = settings_of(bundle=bundle, device=device, precision=precision, threads=threads)
    options = parse_pairs(option)
    if modality is None:
        given = {"include": include or (), "rules": parse_pairs(rule), "fields": parse_pairs(field), "prune": prune, "force": force}
        limits = {"retry_failed": retry_failed, "max_error_rate": max_error_rate}
        raise typer.Exit(_source(inputs, out, {**options, **given, **limits}, settings))
    wanted = format or _format_of(out)
    if wanted is Format.PARQUET:
        from bindery.collections.portable_parquet import pyarrow

        pyarrow()  # before the model is loaded
    model = open_model(settings)
    if "clip_seconds" in options or options.get("clip_by") == "scenes":
        raise typer.Exit(_clips(model, modality, inputs, options, wanted, out))
    results = list(model.embed_each(modality, inputs, **options))
    failed = 0
    for name, result in zip(inputs, results, strict=True):
        if isinstance(result, BinderyError):
            complain(result, name)
            failed += 1
    if wanted is Format.NPY and failed:
        note("nothing was written: the rows of .npy must be all the inputs; --format json or parquet keeps those that succeeded")
        raise typer.Exit(FAILED)
    write_bytes(_WRITERS[wanted](model, modality, inputs, results), out)
    raise typer.Exit(exit_code(len(inputs), failed))


def _source(inputs: Sequence[str], out: Path | None, given: Mapping[str, object], settings: Settings) -> int:
    """A source into shards. The exit code."""
    from bindery.cli.job import job_spec, run_job
    from bindery.jobs.shards import COLLECTION, in_shards, shards_in

    if len(inputs) != 1 or out is None:
        raise typer.BadParameter("give --modality for files or texts, or one source and a folder with --out")
    spec = job_spec(source=inputs[0], collection=COLLECTION, **given)
    spec.clip_options()  # raises InvalidParameter for what makes no grid
    with shards_in(out) as ledger:
        report = run_job(spec, ledger, in_shards(out, ledger), settings)
    typer.echo(str(report))
    return exit_code(report.listed, report.failed)


def _clips(model: Embedder, modality: str, inputs: Sequence[str], options: Mapping[str, str], format: Format, out: Path | None) -> int:
    """Each input as its clips, as JSON; with ``pool=mean`` their mean beside them. The exit code."""
    from bindery.clips import mean_vector
    from bindery.kinds import parse_options

    if format is not Format.JSON:
        raise InvalidParameter("clips are written as JSON; for .npy and Parquet embed parts with start and end, or index the files")
    parse_options(model.bundle.modality(modality).kind, options)
    items: list[dict[str, object]] = []
    failed = 0
    for index, name in enumerate(inputs):
        item: dict[str, object] = {"index": index, "name": name}
        try:
            clips = model.embed_clips(modality, name, **options)
        except BinderyError as error:
            complain(error, name)
            failed += 1
            items.append(item | {"error": _error(error)})
            continue
        item["clips"] = [
            {"start": clip.window.start, "end": clip.window.end}
            | ({"error": _error(clip.vector)} if isinstance(clip.vector, BinderyError) else {"embedding": [float(x) for x in clip.vector]})
            for clip in clips
        ]
        failed += any(isinstance(clip.vector, BinderyError) for clip in clips)
        items.append(item | ({"embedding": [float(x) for x in mean_vector(clips)]} if options.get("pool") == "mean" else {}))
    write_bytes(_document(model, modality, items), out)
    return exit_code(len(inputs), failed)


def _format_of(out: Path | None) -> Format:
    suffix = out.suffix.lower() if out else ""
    return {".npy": Format.NPY, ".parquet": Format.PARQUET}.get(suffix, Format.JSON)


def _json(model: Embedder, modality: str, inputs: Sequence[str], results: Results) -> bytes:
    items: list[dict[str, object]] = []
    for index, (name, result) in enumerate(zip(inputs, results, strict=True)):
        if isinstance(result, BinderyError):
            items.append({"index": index, "name": name, "error": _error(result)})
        else:
            items.append({"index": index, "name": name, "embedding": [float(x) for x in result]})
    return _document(model, modality, items)


def _error(error: BinderyError) -> dict[str, str]:
    return {"code": error.code, "message": error.detail}


def _document(model: Embedder, modality: str, items: Sequence[object]) -> bytes:
    head = {"model": model.bundle.name, "space": model.space, "modality": modality, "dimension": model.dimension}
    return (json.dumps({**head, "items": list(items)}, ensure_ascii=False) + "\n").encode()


def _npy(_model: Embedder, _modality: str, _inputs: Sequence[str], results: Results) -> bytes:
    import numpy as np

    stream = io.BytesIO()
    np.save(stream, np.stack([row for row in results if not isinstance(row, BinderyError)]), allow_pickle=False)
    return stream.getvalue()


def _parquet(model: Embedder, modality: str, inputs: Sequence[str], results: Results) -> bytes:
    """One row an input: name, modality, embedding (null when it failed), error (its code, null when it did not)."""
    from bindery.collections.portable_parquet import pyarrow

    pa, parquet = pyarrow(), pyarrow("pyarrow.parquet")
    vectors = [None if isinstance(result, BinderyError) else result.tolist() for result in results]
    table = pa.table(
        {
            "name": pa.array(inputs, pa.string()),
            "modality": pa.array([modality] * len(inputs), pa.string()),
            "embedding": pa.array(vectors, pa.list_(pa.float32(), model.dimension)),
            "error": pa.array([result.code if isinstance(result, BinderyError) else None for result in results], pa.string()),
        },
        metadata={"bindery.model": model.bundle.name, "bindery.space": model.space},
    )
    stream = io.BytesIO()
    parquet.write_table(table, stream)
    return stream.getvalue()


_WRITERS = {Format.JSON: _json, Format.NPY: _npy, Format.PARQUET: _parquet}
