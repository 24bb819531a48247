"""`bindery index`: a source into a collection, as a job in this process. Run again, it embeds only what is new or changed."""

from __future__ import annotations

from typing import Annotated

import typer

from bindery.cli.console import exit_code
from bindery.cli.job import ClipBy, Executor, job_spec, run_job
from bindery.cli.options import Bundle, DataDir, Device, Precision, Threads, bundle_of, parse_pairs, settings_of


def index(
    source: Annotated[str, typer.Argument(help="A folder (searched to the bottom), a .csv, .jsonl or .parquet manifest, a .tar, s3://….")],
    collection: Annotated[str, typer.Option("--collection", help="Where to put them; made when it is missing.")],
    include: Annotated[list[str] | None, typer.Option("--include", metavar="GLOB", help="Only such files. Repeatable.")] = None,
    rule: Annotated[
        list[str] | None,
        typer.Option("--rule", metavar="GLOB=MODALITY", help='E.g. "depth/**=depth"; the first that matches decides. Repeatable.'),
    ] = None,
    field: Annotated[
        list[str] | None,
        typer.Option("--field", metavar="NAME=TYPE", help="A metadata field to declare when the collection is made. Repeatable."),
    ] = None,
    clip_seconds: Annotated[
        float, typer.Option("--clip-seconds", min=0, help="Cut longer videos and sounds into clips of so many seconds. 0: never.")
    ] = 10.0,
    clip_stride: Annotated[
        float | None, typer.Option("--clip-stride", help="Seconds from one clip's start to the next [default: 0.8 of --clip-seconds].")
    ] = None,
    clip_by: Annotated[
        ClipBy, typer.Option("--clip-by", help="scenes: cut videos where the scene changes, and scenes longer than --clip-seconds evenly.")
    ] = ClipBy.SECONDS,
    clip_min_seconds: Annotated[
        float | None, typer.Option("--clip-min-seconds", min=0, help="Join shorter scenes to the one after them [default: 2].")
    ] = None,
    prune: Annotated[bool, typer.Option("--prune", help="Remove what came from this source and is not there any more.")] = False,
    force: Annotated[bool, typer.Option("--force", help="Prune also when more than half would go.")] = False,
    retry_failed: Annotated[bool, typer.Option("--retry-failed", help="Only the files that failed in the last run.")] = False,
    max_error_rate: Annotated[
        float, typer.Option("--max-error-rate", min=0, max=1, help="Give up when a larger share of the files fails, e.g. 0.05.")
    ] = 1.0,
    executor: Annotated[
        Executor, typer.Option("--executor", help="Embed here, or on the nodes of a Ray cluster (RAY_ADDRESS); they need the source too.")
    ] = Executor.LOCAL,
    data_dir: DataDir = None,
    bundle: Bundle = None,
    device: Device = None,
    precision: Precision = None,
    threads: Threads = None,
) -> None:
    """Embed every file of a source into a collection.

    The modality comes from the rules, else from the suffix; PNG and TIFF count as image. Files that are in the collection with
    the same content are skipped; renamed files and duplicates are copied. A file that cannot be read is reported and counted,
    and the others go on (exit code 3). A file's id is its path below the source; its clips' are ID#start-end. It may be
    interrupted or killed at any time: run it again, and it goes on.
    """
    rules, fields = parse_pairs(rule), parse_pairs(field)

    from bindery.collections import open_store
    from bindery.jobs.ledger import Ledger
    from bindery.jobs.target import in_collections

    settings = settings_of(data_dir=data_dir, bundle=bundle, device=device, precision=precision, threads=threads)
    spec = job_spec(
        source=source, collection=collection, include=include or (), rules=rules, fields=fields, clip_seconds=clip_seconds,
        clip_stride=clip_stride, clip_by=clip_by.value, clip_min_seconds=clip_min_seconds, prune=prune, force=force,
        retry_failed=retry_failed, max_error_rate=max_error_rate,
    )  # fmt: skip
    spec.clip_options()  # raises InvalidParameter for what makes no grid
    with open_store(settings) as store:
        if bundle is None and collection in store:
            settings = bundle_of(store.get(collection).definition, settings)
        ledger = Ledger(settings.data_dir)
        try:
            report = run_job(spec, ledger, in_collections(store), settings, executor)
            if collection in store:
                store.get(collection).seal()  # in this process nothing comes after, in whose background it could be done
        finally:
            ledger.close()
    typer.echo(str(report))
    raise typer.Exit(exit_code(report.listed, report.failed))
