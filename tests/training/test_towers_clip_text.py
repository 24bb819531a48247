from __future__ import annotations

import torch

from training.towers.build import build_tower
from training.towers.clip_text import ClipTextConfig, ClipTextTower

CONFIG = ClipTextConfig(vocabulary=50, context_length=12, width=16, layers=2, heads=2, mlp_width=32, dimension=6)
END = 49


def _tower() -> ClipTextTower:
    torch.manual_seed(0)
    tower = build_tower(CONFIG).eval()
    assert isinstance(tower, ClipTextTower)
    return tower


def _text(*words: int, length: int = 12) -> list[int]:
    return [0, *words, END, *[END] * (length - len(words) - 2)]


def test_padding_of_any_length_makes_no_difference() -> None:
    tower = _tower()
    vectors = [tower(torch.tensor([_text(3, 4, 5, length=length)])) for length in (5, 8, 12)]
    for vector in vectors[1:]:
        torch.testing.assert_close(vector, vectors[0], rtol=0, atol=1e-6)


def test_what_follows_the_first_end_is_not_seen() -> None:
    tower = _tower()
    after = [0, 3, END, 7, 8, END]
    torch.testing.assert_close(tower(torch.tensor([after])), tower(torch.tensor([_text(3)])), rtol=0, atol=1e-6)


def test_the_order_of_words_matters() -> None:
    tower = _tower()
    assert not torch.allclose(tower(torch.tensor([_text(3, 4)])), tower(torch.tensor([_text(4, 3)])), atol=1e-4)


def test_without_an_end_the_first_largest_id_is_pooled() -> None:
    tower = _tower()
    torch.testing.assert_close(tower(torch.tensor([[0, 9, 9, 3]])), tower(torch.tensor([[0, 9, 1, 1]])), rtol=0, atol=1e-6)


def test_rows_of_different_lengths_share_a_batch() -> None:
    tower = _tower()
    rows = torch.tensor([_text(1), _text(1, 2, 3, 4, 5, 6)])
    together = tower(rows)
    torch.testing.assert_close(together.norm(dim=1), torch.ones(2))
    for index in range(2):
        torch.testing.assert_close(tower(rows[index : index + 1])[0], together[index], rtol=0, atol=1e-6)
