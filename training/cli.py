"""`bindery-train RECIPE.toml`: follow a recipe, show how it goes, write a tower package."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from training.assembly import Places
from training.data.manifest import ManifestError
from training.dry_run import DryRun, dry_run
from training.progress import Progress as Step
from training.ranks import ALONE, Ranks, joined
from training.recipe import RecipeError, read_recipe
from training.record import EVENTS
from training.towers.package import TowerPackageError
from training.trainer import Saving, Trained, train

app = typer.Typer(add_completion=False)
console = Console(stderr=True)


@app.command()
def command(
    recipe: Annotated[Path, typer.Argument(help="a TOML recipe")],
    out: Annotated[Path, typer.Option(help="directory of the tower package to write")],
    media: Annotated[Path, typer.Option(help="directory that the recipe's manifest is relative to")] = Path(),
    towers: Annotated[Path, typer.Option(help="directory that the recipe's tower packages are relative to")] = Path(),
    cache: Annotated[Path | None, typer.Option(help="keep features of frozen trunks here from run to run")] = None,
    device: Annotated[str, typer.Option(help="cpu or cuda")] = "cpu",
    save_every: Annotated[int, typer.Option(min=0, help="write a checkpoint every N steps, into OUT/checkpoints; 0: none")] = 0,
    resume: Annotated[bool, typer.Option("--resume", help="go on from the newest checkpoint; begin where there is none")] = False,
    dry: Annotated[bool, typer.Option("--dry-run", help="read everything, show data and shapes, take no step, write nothing")] = False,
) -> None:
    """Train one modality's tower against a frozen text tower, as RECIPE says."""
    try:
        if dry:
            show(dry_run(read_recipe(recipe), Places(media, towers, out, cache), device=device))
            return
        with joined(device) as (ranks, own_device):
            run_recipe(recipe, Places(media, towers, out, cache), device=own_device, ranks=ranks, saving=Saving(save_every, resume))
    except (RecipeError, ManifestError, TowerPackageError) as error:
        console.print(f"error: {error}", markup=False)
        raise typer.Exit(2) from error


def run_recipe(recipe: Path, places: Places, *, device: str = "cpu", ranks: Ranks = ALONE, saving: Saving = Saving()) -> Trained:  # noqa: B008  (frozen)
    """`train` with a progress bar and a summary on standard error, those of the first rank."""
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[numbers]}"),
    )
    followed = read_recipe(recipe)
    with Progress(*columns, console=console, disable=not ranks.first) as bars:
        tasks = {}

        def report(step: Step) -> None:
            if step.stage not in tasks:
                tasks[step.stage] = bars.add_task(f"{followed.name}: {step.stage}", total=step.total, numbers="")
            numbers = "  ".join(f"{name} {value:.3f}" for name, value in step.numbers.items())
            bars.update(tasks[step.stage], completed=step.done, numbers=numbers)

        trained = train(followed, places, device=device, ranks=ranks, saving=saving, report=report)
    if not ranks.first:
        return trained
    if trained.resumed_at:
        console.print(f"resumed after {trained.resumed_at} steps")
    for item, reason in trained.skipped.items():
        console.print(f"skipped {item}: {reason}")
    console.print(f"{trained.package}: {trained.items} items, {len(trained.skipped)} skipped, logit scale {trained.logit_scale:.1f}")
    console.print(
        f"loss {trained.losses[0]:.3f} → {trained.losses[-1]:.3f}; held out: {trained.held_out.hits} of {trained.held_out.n} right"
    )
    console.print(f"{trained.steps} steps; {trained.plot}, and: tensorboard --logdir {trained.package / EVENTS}")
    return trained


def show(found: DryRun) -> None:
    """A dry run in words, on standard output."""
    out = Console(soft_wrap=True, highlight=False)
    out.print(f"{found.items} items to train on, {found.aside} aside; {found.labels} labels, {found.captions} different captions")
    out.print(f"{found.steps} steps in {found.epochs} epochs; {found.trained:,} of the tower's {found.parameters:,} numbers are trained")
    for name, shape in found.shapes.items():
        out.print(f"{name} {shape}", markup=False)
    for id, caption in found.examples:
        out.print(f"{id}: {caption}", markup=False)
    out.print("loss before the first step: " + ", ".join(f"{name} {value:.3f}" for name, value in found.loss.items()))
    for id, reason in found.skipped.items():
        out.print(f"unreadable {id}: {reason}", markup=False)


def main() -> None:
    app()


if __name__ == "__main__":
    main()
