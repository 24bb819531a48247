"""`bindery calibrate`: threads and batches that suit this machine, measured and kept for `bindery serve`."""

from __future__ import annotations

from typing import Annotated

import typer

from bindery.cli.console import print_table
from bindery.cli.options import Bundle, DataDir, Device, Precision, settings_of

Seconds = Annotated[float, typer.Option("--seconds", min=0.1, help="How long to measure each modality, about.")]


def calibrate(
    bundle: Bundle = None, data_dir: DataDir = None, device: Device = None, precision: Precision = None, seconds: Seconds = 3.0
) -> None:
    """Measure threads and batches of each graph on this machine; `bindery serve` with the same data directory then uses them.

    BINDERY_THREADS overrules the threads, and no batch grows beyond BINDERY_MAX_BATCH. Delete the file to go back to the defaults.
    """
    from bindery.bundle import find_bundle, open_bundle
    from bindery.engine.calibration import FOLDER, write_calibration
    from bindery.engine.calibration import calibrate as measure

    settings = settings_of(bundle=bundle, data_dir=data_dir, device=device, precision=precision)
    for name in settings.bundle_names():
        opened = open_bundle(find_bundle(name, settings.bundle_places()))
        found = {
            modality: measure(opened, modality, device=settings.device, precision=settings.precision, seconds=seconds)
            for modality in opened.manifest.modalities
        }
        rows = [(modality, str(one.threads), str(one.max_batch), f"{one.items_per_s:.1f}") for modality, one in found.items()]
        print_table((opened.name, "threads", "batch", "items/s"), rows)
        path = write_calibration(settings.data_dir / FOLDER, opened, settings.device, settings.precision, found)
        typer.echo(f"kept in {path}")
