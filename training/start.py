"""Where a tower starts from, and which of its parts learn."""

from __future__ import annotations

from pathlib import Path

from torch import nn

from training.lora import freeze_for, inject_lora, lora_targets
from training.optim import is_within
from training.recipe import RecipeError, TowerRecipe
from training.towers.build import build_tower
from training.towers.package import load_tower
from training.towers.tower import Tower
from training.towers.vit import VideoBlock, VitTower


def start_tower(recipe: TowerRecipe, towers: Path) -> Tower:
    """A tower of the recipe's shape, its weights taken from the starting package as far as the recipe says.

    Raises `RecipeError` when a weight that should be taken has no place of its shape, or when none was taken.
    """
    if recipe.start is None:
        assert recipe.config is not None
        return build_tower(recipe.config)
    package = load_tower(towers / recipe.start)
    source = package.module()
    if recipe.config is None or recipe.config == package.config:
        return source
    tower = build_tower(recipe.config)
    mine = tower.state_dict()
    parts = recipe.start_parts
    taken = {name: tensor for name, tensor in source.state_dict().items() if not parts or any(is_within(name, part) for part in parts)}
    if not taken:
        raise RecipeError(f"{recipe.start} has no weight in {', '.join(parts)}")
    for name, tensor in taken.items():
        if name not in mine or mine[name].shape != tensor.shape:
            raise RecipeError(f"{recipe.start}: {name} {tuple(tensor.shape)} has no place in the new tower; name tower.start_parts")
        mine[name].copy_(tensor)
    if not any("temporal" in name for name in taken):  # a picture tower became a video tower: time begins as space, as in the reference
        for block in tower.modules():
            if isinstance(block, VideoBlock):
                block.start_from_space()
    return tower


def choose_trained(tower: Tower, recipe: TowerRecipe) -> tuple[str, ...]:
    """Set ``requires_grad`` of every parameter, with adapters put in for LoRA; returns the trained names. Raises `RecipeError`."""
    if recipe.train == "all":
        tower.requires_grad_(True)
        return tuple(name for name, _ in tower.named_parameters())
    if isinstance(recipe.train, tuple):
        for name, parameter in tower.named_parameters():
            parameter.requires_grad_(any(is_within(name, part) for part in recipe.train))
        return tuple(name for name, parameter in tower.named_parameters() if parameter.requires_grad)
    if not isinstance(tower, VitTower):
        raise RecipeError(f"tower.train = {recipe.train!r} is for vision transformers; name the parts to train instead")
    if recipe.train == "lora":
        inject_lora(tower, lora_targets(tower), recipe.lora)
    return freeze_for(tower, recipe.train)


def trains_batch_norm(tower: nn.Module) -> bool:
    """Whether a batch norm learns: its statistics are those of the items that pass at once, so these must be the whole batch."""
    return any(isinstance(module, nn.BatchNorm2d) and module.weight.requires_grad for module in tower.modules())


def set_training(tower: nn.Module) -> None:
    """Training mode, except that a frozen batch norm keeps its statistics: they belong to the frozen weights."""
    tower.train()
    for module in tower.modules():
        if isinstance(module, nn.BatchNorm2d) and not module.weight.requires_grad:
            module.eval()
