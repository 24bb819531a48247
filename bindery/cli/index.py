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
    data_dir: DataDir = None,
    bundle: Bundle = None,
    device: Device = None,
    precision: Precision = None,
    threads: Threads = None,
) -> None:
    """Embed every file below a folder into a collection.

    The modality comes from the rules, else from the suffix; PNG and TIFF count as image. Files that are in the collection with
    the same content are skipped. A file that cannot be read is reported and counted, and the others go on (exit code 3).
    A file's id is its path below the folder. It may be interrupted at any time and run again.
    """
    rules = [Rule(glob, modality) for glob, modality in parse_pairs(rule).items()]
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
            _run(listing.files, model, settings.precision, target, tally)
        except KeyboardInterrupt:
            note(f"interrupted: {tally}; what is done is kept, run it again for the rest")
            raise typer.Exit(_INTERRUPTED) from None
    typer.echo(str(tally))
    raise typer.Exit(exit_code(tally.listed, tally.failed))


def _run(files: Sequence[Listed], model: Embedder, precision: str, target: Collection, tally: Tally) -> None:
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    console = progress_console()
    with Progress(*columns, console=console, disable=not console.is_terminal) as progress:
        bar = progress.add_task("indexing", total=len(files))
        for start in range(0, len(files), _STEP):
            step = files[start : start + _STEP]
            hashes = dict(_hashes(step, model, precision, tally))
            known = target.content_hashes(hashes)
            changed = [file for file in step if file.id in hashes and known.get(file.id) != hashes[file.id]]
            tally.skipped += len(hashes) - len(changed)
            for modality in sorted({file.modality for file in changed}):
                _store(modality, [file for file in changed if file.modality == modality], hashes, model, target, tally)
            progress.advance(bar, len(step))


def _store(modality: str, files: Sequence[Listed], hashes: Mapping[str, str], model: Embedder, target: Collection, tally: Tally) -> None:
    from bindery.collections import Item

    items: list[Item] = []
    for file, vector in zip(files, _embed(modality, files, model), strict=True):
        if isinstance(vector, BinderyError):
            _fail(file.id, vector, tally)
        else:
            items.append(Item(file.id, modality, vector, uri=str(file.path.absolute()), content_hash=hashes[file.id]))
    for result in target.upsert(items):
        if result.error is not None:
            _fail(result.id, result.error, tally)
        else:
            tally.done += 1


def _hashes(files: Sequence[Listed], model: Embedder, precision: str, tally: Tally) -> Iterator[tuple[str, str]]:
    """Each file's id with a digest of all that decides its vector: bytes, bundle, modality and precision."""
    from bindery.media.guard import check_bytes
    from bindery.media.source import Source

    for file in files:
        digest = hashlib.sha256(f"{model.bundle.digest} {file.modality} {precision} ".encode())
        try:
            source = Source.of(file.path)
            check_bytes(source, model.limits)
            with source.open() as stream:
                while piece := stream.read(1 << 20):
                    digest.update(piece)
        except BinderyError as error:
            _fail(file.id, error, tally)
        except OSError as error:
            _fail(file.id, UnreadableMedia(f"{file.id} cannot be read: {error.strerror}"), tally)
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
