"""`bindery-eval BUNDLE TASK --data DIR`: measure a bundle or tower packages on a benchmark, print the table."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from bindery.bundle import Precision
from bindery.errors import BinderyError
from bindery.runtime.open import Device
from training.data.manifest import ManifestError
from training.evaluation.encoders import open_encoder_of
from training.evaluation.figures import measure
from training.evaluation.plots import draw
from training.evaluation.report import as_json, as_markdown
from training.evaluation.task import TaskError, known_tasks, read_tasks
from training.towers.package import TowerPackageError

app = typer.Typer(add_completion=False)
console = Console(stderr=True)


def _show_tasks(wanted: bool) -> None:
    if wanted:
        for name in known_tasks():
            Console().print(f"{name:16} {'; '.join(task.name for task in read_tasks(name))}", markup=False, highlight=False)
        raise typer.Exit


@app.command()
def command(
    bundle: Annotated[str, typer.Argument(help="name or directory of a bundle, or a directory of tower packages")],
    task: Annotated[str, typer.Argument(help="a benchmark's name (--list), or a TOML file of your own")],
    data: Annotated[Path, typer.Option(help="directory of the benchmark, in its published layout")],
    out: Annotated[Path | None, typer.Option(help="directory for results.json, results.md and the pictures")] = None,
    device: Annotated[Device, typer.Option()] = "auto",
    precision: Annotated[Precision, typer.Option()] = "exact",
    threads: Annotated[int | None, typer.Option(help="threads of the runtime")] = None,
    _: Annotated[bool, typer.Option("--list", help="name the benchmarks", callback=_show_tasks, is_eager=True)] = False,
) -> None:
    """Measure BUNDLE on TASK and print the table, beside chance and the published figures."""
    try:
        tasks = read_tasks(task)
        encoder = open_encoder_of(bundle, device=device, precision=precision, threads=threads)
        with console.status("reading") as status:
            measured = measure(encoder, tasks, data, report=status.update)
    except (BinderyError, ManifestError, TaskError, TowerPackageError) as error:
        console.print(f"error: {error}", markup=False)
        raise typer.Exit(2) from error
    results = as_json(encoder, tasks, measured)
    table = as_markdown(results)
    for name in measured.left_out:
        console.print(f"left out: {name}", markup=False)
    if measured.errors:
        console.print(f"{len(measured.errors)} files could not be read; the first: {next(iter(measured.errors.items()))}", markup=False)
    if out is not None:
        out.mkdir(parents=True, exist_ok=True)
        (out / "results.json").write_text(json.dumps(results, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
        (out / "results.md").write_text(table, encoding="utf-8")
        try:
            draw(results, measured.confusions, out)
        except ModuleNotFoundError:
            console.print("no pictures: install bindery[plot] for them", markup=False)
    Console(soft_wrap=True).print(table, markup=False, highlight=False)


def main() -> None:
    app()


if __name__ == "__main__":
    main()
