"""`bindery-export`: towers and released checkpoints → bundles. Thin: it parses, calls one function, reports."""

from __future__ import annotations

import json
import logging
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any, cast, get_args

import typer

from bindery.bundle import Manifest, find_bundle, open_bundle
from bindery.errors import BinderyError
from bindery.runtime.tensorrt import COMPUTED
from export.engines import build_engines
from export.errors import ExportError, ExportUsageError
from export.languagebind_bundle import LICENCE, languagebind_sources
from export.openclip import ARCHITECTURES, openclip_sources
from export.openclip import LICENCE as OPENCLIP_LICENCE
from export.options import BundleOptions, pairs, text_of, with_bundle_options
from export.policy import apply_policies
from export.prove import MAX_DROP, MIN_COSINE, ProofOrder, Reduced
from export.prove import prove as measure_and_write
from export.read_back import bundle_sources
from export.source import TowerSource
from export.towers_bundle import extended_card, require_space, tower_sources
from export.unpack import unpack as write_packages
from export.write_bundle import CARD, BundleOrder, extend_bundle, write_bundle
from training.towers.package import TowerPackageError

app = typer.Typer(no_args_is_help=True, add_completion=False, rich_markup_mode=None, pretty_exceptions_enable=False)

Out = Annotated[Path, typer.Option(help="Directory of the bundle; must not exist.")]
Version = Annotated[str, typer.Option(help="Version of the bundle.")]
Share = Annotated[bool, typer.Option("--share-weights", help="All graphs in one folder with one weight file, equal weights stored once.")]


@app.callback()
def _bindery_export() -> None:
    """Make bundles, which `bindery` serves, from released checkpoints or trained towers."""


@app.command(
    epilog="Example: bindery-export languagebind --checkpoint audio=LanguageBind_Audio_FT --checkpoint video=LanguageBind_Video_FT --out lb"
)
@with_bundle_options
def languagebind(
    checkpoint: Annotated[
        list[str], typer.Option(help="MODALITY=DIR, or MODALITY=org/name on the hub; repeat it.", metavar="MODALITY=DIR")
    ],
    out: Out,
    tokenizer: Annotated[
        Path | None,
        typer.Option(help="Directory with vocab.json and merges.txt; by default a checkpoint's own.", exists=True, file_okay=False),
    ] = None,
    name: Annotated[str, typer.Option(help="Name of the bundle.")] = "languagebind",
    version: Version = "1",
    licence: Annotated[str, typer.Option(help="Licence statement of the weights.")] = LICENCE,
    share_weights: Share = False,
    *,
    options: BundleOptions,
) -> None:
    """Turn released LanguageBind packages into one bundle."""
    with _exit_codes():
        sources, origin = languagebind_sources(pairs("--checkpoint", checkpoint), None if tokenizer is None else str(tokenizer))
        order = options.order(
            sources,
            name=name,
            version=version,
            licence=licence,
            provenance=origin,
            share_weights=share_weights,
        )
        _write(out, sources, options.policy or [], order)


@app.command(
    epilog="Example: bindery-export towers --tower text=t/text --tower image=t/image --name starter --licence Apache-2.0 --out starter"
)
@with_bundle_options
def towers(
    tower: Annotated[list[str], typer.Option(help="MODALITY=DIR of a tower package; repeat it.", metavar="MODALITY=DIR")],
    out: Out,
    name: Annotated[str, typer.Option(help="Name of the bundle.")],
    licence: Annotated[str, typer.Option(help="Licence statement of the weights.")],
    version: Version = "1",
    provenance: Annotated[
        Path | None, typer.Option(help="JSON object: where data and weights come from.", exists=True, dir_okay=False)
    ] = None,
    share_weights: Share = False,
    *,
    options: BundleOptions,
) -> None:
    """Turn trained tower packages into one bundle."""
    with _exit_codes():
        sources, origin = tower_sources(pairs("--tower", tower))
        order = options.order(
            sources,
            name=name,
            version=version,
            licence=licence,
            provenance={**origin, **_json_object(provenance)},
            share_weights=share_weights,
        )
        _write(out, sources, options.policy or [], order)


@app.command(epilog="Example: bindery-export openclip --checkpoint CLIP-ViT-L-14-laion2B --out bundles/clip")
@with_bundle_options
def openclip(
    checkpoint: Annotated[str, typer.Option(help="DIR or org/name with open_clip_config.json and weights, or one file of weights.")],
    out: Out,
    architecture: Annotated[
        str | None, typer.Option(help=f"Of a file of weights: {', '.join(ARCHITECTURES)}, or one of them with -quickgelu.")
    ] = None,
    tokenizer: Annotated[
        Path | None,
        typer.Option(help="Directory with vocab.json and merges.txt; by default the checkpoint's own.", exists=True, file_okay=False),
    ] = None,
    name: Annotated[str, typer.Option(help="Name of the bundle.")] = "openclip",
    version: Version = "1",
    licence: Annotated[str, typer.Option(help="Licence statement of the weights.")] = OPENCLIP_LICENCE,
    share_weights: Share = False,
    *,
    options: BundleOptions,
) -> None:
    """Turn an OpenCLIP checkpoint into a bundle of text and image."""
    with _exit_codes():
        sources, origin = openclip_sources(checkpoint, architecture, None if tokenizer is None else str(tokenizer))
        order = options.order(
            sources,
            name=name,
            version=version,
            licence=licence,
            provenance=origin,
            share_weights=share_weights,
        )
        _write(out, sources, options.policy or [], order)


@app.command(
    epilog="Example: bindery-export prove bundles/mine --precision bf16 --media video=clips --labelled image=photos "
    "(photos/cat/1.jpg, photos/dog/2.jpg)"
)
def prove(
    bundle: Annotated[Path, typer.Argument(help="Directory of the bundle; its manifest is written anew.", exists=True, file_okay=False)],
    precision: Annotated[str, typer.Option(help="bf16 or int8, computed by OpenVINO.")],
    media: Annotated[
        list[str] | None, typer.Option(help="MODALITY=FOLDER of files to measure with; noise where none is given.", metavar="MODALITY=DIR")
    ] = None,
    labelled: Annotated[
        list[str] | None, typer.Option(help="MODALITY=FOLDER of folders named as labels: measures top-1 too.", metavar="MODALITY=DIR")
    ] = None,
    min_cosine: Annotated[float, typer.Option("--min-cosine", help="Floor: least cosine to the exact vector.", min=-1, max=1)] = MIN_COSINE,
    max_drop: Annotated[
        float, typer.Option("--max-drop", help="Floor: most that top-1 may fall (0.005: half a point); one file always may.", min=0, max=1)
    ] = MAX_DROP,
) -> None:
    """Measure a reduced precision on this machine against the exact graphs, and write the proof into the manifest."""
    with _exit_codes():
        if precision not in get_args(Reduced):
            raise ExportUsageError(f"--precision {precision}: use one of {', '.join(get_args(Reduced))}")
        order = ProofOrder(
            precision=cast("Reduced", precision),
            media={name: Path(text) for name, text in pairs("--media", media or []).items()},
            labelled={name: Path(text) for name, text in pairs("--labelled", labelled or []).items()},
            min_cosine=min_cosine,
            max_drop=max_drop,
        )
        found = measure_and_write(bundle, order)
        parities = {name: parity.model_dump(mode="json") for name, parity in found.items()}
        typer.echo(json.dumps({"bundle": str(bundle), "precision": precision, "parity": parities}, indent=1))


@app.command(epilog="Example: bindery-export tensorrt bundles/mine --cache-dir /var/cache/bindery --precision bf16")
def tensorrt(
    bundle: Annotated[Path, typer.Argument(help="Directory of the bundle.", exists=True, file_okay=False)],
    cache_dir: Annotated[Path, typer.Option("--cache-dir", help="The server's BINDERY_CACHE_DIR.", file_okay=False)],
    precision: Annotated[str, typer.Option(help="exact, bf16 or fp16.")] = "exact",
    modality: Annotated[list[str] | None, typer.Option(help="Only this modality; repeat it.")] = None,
) -> None:
    """Build TensorRT engines on the machine that will serve, and prove each against the exact graph on its CPU."""
    with _exit_codes():
        if precision not in COMPUTED:
            raise ExportUsageError(f"--precision {precision}: use one of {', '.join(COMPUTED)}")
        built = build_engines(bundle, cache_dir, precision, modality or [])
        typer.echo(json.dumps({"bundle": str(bundle), "cache_dir": str(cache_dir), "engines": built}, indent=1))


@app.command(epilog="Example: bindery-export add --bundle starter --tower xray=runs/xray --out bundles/mine")
@with_bundle_options
def add(
    tower: Annotated[list[str], typer.Option(help="MODALITY=DIR of a tower package; repeat it.", metavar="MODALITY=DIR")],
    out: Out,
    bundle: Annotated[str, typer.Option(help="Name or directory of the bundle that they join; it stays as it is.")],
    name: Annotated[str | None, typer.Option(help="Name of the new bundle; by default the old one's.")] = None,
    version: Annotated[str | None, typer.Option(help="Version of the new bundle; by default the old one's.")] = None,
    licence: Annotated[str | None, typer.Option(help="Licence statement; by default the old one's.")] = None,
    *,
    options: BundleOptions,
) -> None:
    """Add towers that were trained in a bundle's space (`text = "bundle:NAME"` in their recipe) to all that it has."""
    with _exit_codes():
        found = open_bundle(find_bundle(bundle))
        sources, origin = tower_sources(pairs("--tower", tower))
        require_space(origin["towers"], found.manifest.space)
        old_card = found.root / CARD
        order = options.order(
            sources,
            name=name or found.manifest.name,
            version=version or found.manifest.version,
            licence=licence or found.manifest.licence,
            provenance=origin,
            card=text_of(options.card) or (extended_card(text_of(old_card) or "", sources) if old_card.is_file() else None),
        )
        _report(out, extend_bundle(out, found, apply_policies(sources, options.policy or []), order))


@app.command(epilog="Example: bindery-export unpack --checkpoint image=LanguageBind_Image --out towers")
def unpack(
    out: Annotated[Path, typer.Option(help="Directory for the packages: OUT/text, OUT/MODALITY.")],
    checkpoint: Annotated[
        list[str] | None,
        typer.Option(help="A LanguageBind package: MODALITY=DIR, or MODALITY=org/name on the hub; repeat it.", metavar="MODALITY=DIR"),
    ] = None,
    openclip: Annotated[str | None, typer.Option(help="An OpenCLIP checkpoint: DIR, org/name, or one file of weights.")] = None,
    architecture: Annotated[str | None, typer.Option(help="Of a file of weights: ViT-L-14 and so on.")] = None,
    bundle: Annotated[str | None, typer.Option(help="Name or directory of a bundle whose own towers are wanted.")] = None,
    modality: Annotated[list[str] | None, typer.Option(help="Of the bundle: only this modality; repeat it.")] = None,
    tokenizer: Annotated[
        Path | None,
        typer.Option(help="Directory with vocab.json and merges.txt; by default a checkpoint's own.", exists=True, file_okay=False),
    ] = None,
) -> None:
    """Turn released checkpoints, or a bundle's towers, into tower packages for training to start from."""
    with _exit_codes():
        if sum(bool(given) for given in (checkpoint, openclip, bundle)) != 1:
            raise ExportUsageError("give one of --checkpoint, --openclip and --bundle")
        words = None if tokenizer is None else str(tokenizer)
        if bundle is not None:
            sources, origin = bundle_sources(open_bundle(find_bundle(bundle)), modality or [])
        elif openclip is not None:
            sources, origin = openclip_sources(openclip, architecture, words)
        else:
            sources, origin = languagebind_sources(pairs("--checkpoint", checkpoint or []), words)
        for package in write_packages(out, sources, origin):
            typer.echo(package)


def main() -> None:
    logging.basicConfig(stream=sys.stderr, level=logging.WARNING, format="%(message)s")
    logging.getLogger("export").setLevel(logging.INFO)
    app()


def _write(out: Path, sources: Sequence[TowerSource], policies: Sequence[str], order: BundleOrder) -> None:
    if policies:
        order = replace(order, provenance={**order.provenance, "policies": list(policies)})
    _report(out, write_bundle(out, apply_policies(sources, policies), order))


def _report(out: Path, manifest: Manifest) -> None:
    typer.echo(
        json.dumps(
            {
                "bundle": str(out),
                "space": manifest.space,
                "parity": {name: modality.artefacts[0].parity.model_dump(mode="json") for name, modality in manifest.modalities.items()},
            },
            indent=1,
        )
    )


@contextmanager
def _exit_codes() -> Iterator[None]:
    try:
        yield
    except ExportUsageError as error:
        typer.echo(f"bindery-export: {error}", err=True)
        raise typer.Exit(2) from error
    except (ExportError, TowerPackageError, BinderyError, OSError) as error:
        typer.echo(f"bindery-export: {error}", err=True)
        raise typer.Exit(1) from error


def _json_object(path: Path | None) -> dict[str, Any]:
    if path is None:
        return {}
    try:
        document = json.loads(path.read_bytes())
    except ValueError as error:
        raise ExportUsageError(f"--provenance {path} is not JSON: {error}") from error
    if not isinstance(document, dict):
        raise ExportUsageError(f"--provenance {path} holds no JSON object")
    return document
