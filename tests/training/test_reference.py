from __future__ import annotations

import re
import tomllib
from pathlib import Path

from training.recipe import Recipe
from training.reference import FILE, as_markdown

DOCS = Path(__file__).parents[2] / "docs"


def test_the_page_of_keys_is_the_one_that_the_models_write() -> None:
    assert (DOCS / FILE).read_text(encoding="utf-8") == as_markdown(), "run: python -m training.reference docs"


def test_every_key_is_there_with_its_default() -> None:
    page = as_markdown()
    assert set(Recipe.model_fields) <= set(re.findall(r"^\| `(\w+)` \|", page.split("## `[spec]`")[0], re.MULTILINE))
    assert "| `batch` | whole number | required | items of one step; every one is the others' negative |" in page
    assert '| `precision` | `"float32"` or `"bf16"` | `"float32"` |' in page
    for heading in ("[data]", "[augment]", "[loss]", "[[losses]]", "[optim]", "[compute]", "[watch]", "[tower.lora]", "[features]"):
        assert f"## `{heading}`" in page


def test_the_examples_of_the_docs_are_recipes() -> None:
    text = (DOCS / "training.md").read_text(encoding="utf-8")
    whole, *parts = re.findall(r"```toml\n(.*?)```", text, re.DOTALL)
    recipe = tomllib.loads(whole)
    Recipe.model_validate(recipe)
    added = [part for part in parts if set(tomllib.loads(part)) <= set(Recipe.model_fields)]  # the others are tasks of an evaluation
    assert len(added) >= 3
    for part in added:
        Recipe.model_validate({**recipe, **{name: _joined(recipe.get(name), value) for name, value in tomllib.loads(part).items()}})


def _joined(old: object, new: object) -> object:
    return {**old, **new} if isinstance(old, dict) and isinstance(new, dict) else new
