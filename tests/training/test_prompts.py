"""Templates are left out where they do harm, and only there."""

from __future__ import annotations

import numpy as np

from bindery.vectors import normalize
from training.prompts import choose_prompts

PROMPTS = ("a photo of a {}", "a {}", "a bad drawing of a {}", "{}")


def _items(seed: int, labels: int = 6, each: int = 30, dimension: int = 32) -> tuple[np.ndarray, np.ndarray, list[int]]:
    """Unit vectors ``(n, d)`` around each label's own, the labels' ``(labels, d)``, and which label each item has."""
    draw = np.random.default_rng(seed)
    true = normalize(draw.standard_normal((labels, dimension)).astype(np.float32))
    right = [label for label in range(labels) for _ in range(each)]
    return normalize(true[right] + 0.25 * draw.standard_normal((len(right), dimension)).astype(np.float32)), true, right


def _said(true: np.ndarray, noise: dict[str, float], seed: int = 9) -> np.ndarray:
    """``(labels, prompts, d)``: each label's vector with a template's own noise."""
    draw = np.random.default_rng(seed)
    spread = np.array([noise.get(prompt, 0.0) for prompt in PROMPTS], dtype=np.float32)[None, :, None]
    return (
        normalize((true[:, None] + spread * draw.standard_normal((len(true), len(PROMPTS), true.shape[1]))).reshape(-1, true.shape[1]))
        .reshape(len(true), len(PROMPTS), -1)
        .astype(np.float32)
    )


def test_templates_that_are_equally_good_all_stay() -> None:
    vectors, true, right = _items(0)
    assert choose_prompts(vectors, _said(true, {}), right, PROMPTS) == PROMPTS


def test_a_template_that_misleads_is_left_out() -> None:
    vectors, true, right = _items(1)
    said = _said(true, {"a bad drawing of a {}": 3.0})
    assert choose_prompts(vectors, said, right, PROMPTS) == ("a photo of a {}", "a {}", "{}")


def test_one_template_stays_whatever_it_is_worth() -> None:
    vectors, true, right = _items(2)
    said = _said(true, dict.fromkeys(PROMPTS, 20.0))
    assert len(choose_prompts(vectors, said, right, PROMPTS)) >= 1
    assert choose_prompts(vectors, said[:, :1], right, PROMPTS[:1]) == PROMPTS[:1]


def test_several_noisy_templates_together_are_kept_for_their_mean() -> None:
    """Each alone is worse than their mean: backward from all, none is missed."""
    vectors, true, right = _items(3)
    said = _said(true, dict.fromkeys(PROMPTS, 0.15))
    assert choose_prompts(vectors, said, right, PROMPTS) == PROMPTS
