"""`bindery index`: a folder into a collection. Run again, it embeds only what is new or changed."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from bindery.cli.console import complain, exit_code, note, progress_console
from bindery.cli.folder import Listed, Rule, list_folder
from bindery.cli.options import Bundle, DataDir, Device, Precision, Threads, bundle_of, open_model, parse_pairs, settings_of
from bindery.errors import BinderyError, UnreadableMedia

if TYPE_CHECKING:
    from bindery.collections import Collection
    from bindery.embedder import Embedder
    from bindery.vectors import Vectors

_STEP = 16  # files embedded and committed together: the most that a crash or Ctrl-C can lose
_INTERRUPTED = 130  # as shells say it: 128 + SIGINT


@dataclass
class Tally:
    """What became of the files; ``listed`` is the sum of the others when the run went to its end."""

    listed: int
    done: int = 0
    skipped: int = 0
    failed: int = 0

    def __str__(self) -> str:
        return f"{self.listed} listed = {self.done} done + {self.skipped} skipped + {self.failed} failed"


@dataclass(frozen=True)
class Work:
    """What every step of a run needs."""

    model: Embedder
    precision: str
    grid: Mapping[str, float]
    target: Collection
    tally: Tally

    def lasts(self, modality: str) -> bool:
        from bindery.kinds import KINDS

        return KINDS[self.model.bundle.modality(modality).kind].measure is not None

    def cuts(self, modality: str) -> bool:
        return bool(self.grid) and self.lasts(modality)


def index(
    source: Annotated[Path, typer.Argument(help="A folder; it is searched to the bottom.")],
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
    data_dir: DataDir = None,
    bundle: Bundle = None,
    device: Device = None,
    precision: Precision = None,
    threads: Threads = None,
) -> None:
    """Embed every file below a folder into a collection.

    The modality comes from the rules, else from the suffix; PNG and TIFF count as image. Files that are in the collection with
    the same content are skipped. A file that cannot be read is reported and counted, and the others go on (exit code 3).
    A file's id is its path below the folder; its clips' are ID#start-end. It may be interrupted at any time and run again.
    """
    rules = [Rule(glob, modality) for glob, modality in parse_pairs(rule).items()]
    grid = _grid(clip_seconds, clip_stride)
    fields = parse_pairs(field)

    from bindery.collections import Store, check_space

    settings = settings_of(data_dir=data_dir, bundle=bundle, device=device, precision=precision, threads=threads)
    with Store(settings.data_dir, settings.limits) as store:
        if bundle is None and collection in store:
            settings = bundle_of(store.get(collection).definition, settings)
        model = open_model(settings)
        for one in rules:
            model.bundle.modality(one.modality)  # raises UnknownModality before any work is done
        listing = list_folder(source, include or [], rules, _suffixes(model))
        if collection not in store:
            store.create(collection, space=model.space, dimension=model.dimension, bundle=model.bundle.name, fields=fields)
        target = store.get(collection)
        check_space(target.definition, model.space, f"bundle {model.bundle.name!r}")
        _tell_left_out(listing.ambiguous, listing.other)
        tally = Tally(len(listing.files))
        try:
            _run(listing.files, Work(model, settings.precision, grid, target, tally))
        except KeyboardInterrupt:
            note(f"interrupted: {tally}; what is done is kept, run it again for the rest")
            raise typer.Exit(_INTERRUPTED) from None
    typer.echo(str(tally))
    raise typer.Exit(exit_code(tally.listed, tally.failed))


def _run(files: Sequence[Listed], work: Work) -> None:
    tally = work.tally
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    console = progress_console()
    with Progress(*columns, console=console, disable=not console.is_terminal) as progress:
        bar = progress.add_task("indexing", total=len(files))
        for start in range(0, len(files), _STEP):
            step = files[start : start + _STEP]
            hashes = dict(_hashes(step, work))
            known = work.target.content_hashes(hashes)
            changed = [file for file in step if file.id in hashes and known.get(file.id) != hashes[file.id]]
            tally.skipped += len(hashes) - len(changed)
            for modality in sorted({file.modality for file in changed}):
                (_store_clips if work.cuts(modality) else _store)(
                    modality, [file for file in changed if file.modality == modality], hashes, work
                )
            progress.advance(bar, len(step))


def _store(modality: str, files: Sequence[Listed], hashes: Mapping[str, str], work: Work) -> None:
    from bindery.collections import Item

    items: list[Item] = []
    for file, vector in zip(files, _embed(modality, files, work.model), strict=True):
        if isinstance(vector, BinderyError):
            _fail(file.id, vector, work.tally)
        else:
            items.append(Item(file.id, modality, vector, uri=str(file.path.absolute()), content_hash=hashes[file.id]))
    # A file that was stored as clips before is stored whole now.
    for result in work.target.upsert(items, media=[item.id for item in items] if work.lasts(modality) else ()):
        if result.error is not None:
            _fail(result.id, result.error, work.tally)
        else:
            work.tally.done += 1


def _store_clips(modality: str, files: Sequence[Listed], hashes: Mapping[str, str], work: Work) -> None:
    """One commit a file: it may have hundreds of clips. A file with a clip that failed keeps the others, and counts as failed."""
    from bindery.moments import Medium, store_media

    for file in files:
        try:
            clips = work.model.embed_clips(modality, file.path, **work.grid)
        except BinderyError as error:
            _fail(file.id, error, work.tally)
            continue
        (stored,) = store_media(work.target, [Medium(file.id, modality, clips, str(file.path.absolute()), content_hash=hashes[file.id])])
        failed = [clip for clip in stored.clips if clip.error is not None]
        for clip in failed:
            assert clip.error is not None
            complain(clip.error, clip.id)
        work.tally.failed += bool(failed)
        work.tally.done += not failed


def _hashes(files: Sequence[Listed], work: Work) -> Iterator[tuple[str, str]]:
    """Each file's id with a digest of all that decides its vectors: bytes, bundle, modality, precision and the grid of clips."""
    from bindery.media.guard import check_bytes
    from bindery.media.source import Source

    for file in files:
        grid = work.grid if work.cuts(file.modality) else {}
        digest = hashlib.sha256(f"{work.model.bundle.digest} {file.modality} {work.precision} {sorted(grid.items())} ".encode())
        try:
            source = Source.of(file.path)
            check_bytes(source, work.model.limits)
            with source.open() as stream:
                while piece := stream.read(1 << 20):
                    digest.update(piece)
        except BinderyError as error:
            _fail(file.id, error, work.tally)
        except OSError as error:
            _fail(file.id, UnreadableMedia(f"{file.id} cannot be read: {error.strerror}"), work.tally)
        else:
            yield file.id, digest.hexdigest()


def _embed(modality: str, files: Sequence[Listed], model: Embedder) -> Iterator[Vectors | BinderyError]:
    if model.bundle.modality(modality).kind != "text":
        yield from model.embed_each(modality, [file.path for file in files])
        return
    texts = [_text(file) for file in files]
    vectors = model.embed_each(modality, [text for text in texts if isinstance(text, str)])
    for text in texts:
        yield next(vectors) if isinstance(text, str) else text


def _grid(clip_seconds: float, clip_stride: float | None) -> dict[str, float]:
    """The options that cut; none when nothing is cut. Raises `InvalidParameter` for what makes no grid."""
    from bindery.kinds import parse_options

    given = {"clip_seconds": clip_seconds or None, "clip_stride": clip_stride}
    grid = {name: value for name, value in given.items() if value is not None}
    parse_options("video", grid)
    return grid


def _text(file: Listed) -> str | BinderyError:
    try:
        return file.path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError:
        return UnreadableMedia(f"{file.id} is not UTF-8 text")
    except OSError as error:
        return UnreadableMedia(f"{file.id} cannot be read: {error.strerror}")


def _fail(id: str, error: BinderyError, tally: Tally) -> None:
    complain(error, id)
    tally.failed += 1


def _suffixes(model: Embedder) -> dict[str, tuple[str, ...]]:
    from bindery.kinds import KINDS

    return {name: KINDS[model.bundle.modality(name).kind].suffixes for name in model.modalities}


def _tell_left_out(ambiguous: Sequence[str], other: int) -> None:
    if other:
        note(f"left out {other} files of no kind that the bundle takes")
    if ambiguous:
        note(f'left out {len(ambiguous)} files that could be several modalities, such as {ambiguous[0]}; give a --rule "GLOB=MODALITY"')
