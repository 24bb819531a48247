from __future__ import annotations

import math

import pytest
import torch

from training.losses import LogitScale, contrastive_loss, positives


def test_the_loss_is_the_mean_of_both_cross_entropies_worked_out_by_hand() -> None:
    media = torch.tensor([[1.0, 0.0], [0.0, 1.0]])
    text = torch.tensor([[0.6, 0.8], [0.0, 1.0]])
    # cosines: [[0.6, 0], [0.8, 1]]; scale 2 -> logits [[1.2, 0], [1.6, 2]]
    to_text = (math.log(math.exp(1.2) + 1) - 1.2 + math.log(math.exp(1.6) + math.exp(2)) - 2) / 2
    to_media = (math.log(math.exp(1.2) + math.exp(1.6)) - 1.2 + math.log(1 + math.exp(2)) - 2) / 2
    loss = contrastive_loss(media, text, torch.tensor(2.0), torch.eye(2))
    assert loss.item() == pytest.approx((to_text + to_media) / 2, abs=1e-6)


def test_a_perfect_batch_with_a_shared_caption_loses_only_what_sharing_costs() -> None:
    vectors = torch.tensor([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0]])
    together = positives(["dog", "dog", "cat"], ["", "", ""], "same_caption")
    shared = contrastive_loss(vectors, vectors, torch.tensor(100.0), together)
    alone = contrastive_loss(vectors, vectors, torch.tensor(100.0), torch.eye(3))
    # Two equal targets of probability one half each: the entropy ln 2 for two of three rows, and no more can be asked.
    assert shared.item() == pytest.approx(2 / 3 * math.log(2), abs=1e-4)
    assert alone.item() == pytest.approx(shared.item(), abs=1e-4)
    # But only with the shared targets is there nothing left to gain by pushing the twins apart.
    scores = vectors.clone().requires_grad_()
    contrastive_loss(scores, vectors, torch.tensor(5.0), together).backward()
    assert scores.grad is not None
    assert torch.allclose(scores.grad[0], scores.grad[1])


def test_positives_by_pair_caption_and_label() -> None:
    captions, labels = ["a dog", "a dog", "barking", "rain"], ["dog", "dog", "dog", ""]
    assert positives(captions, labels, "pair").tolist() == torch.eye(4).tolist()
    assert positives(captions, labels, "same_caption")[0].tolist() == [1, 1, 0, 0]
    assert positives(captions, labels, "same_label")[0].tolist() == [1, 1, 1, 0]
    assert positives(["x", "y"], ["", ""], "same_label").tolist() == torch.eye(2).tolist()


def test_the_scale_starts_at_the_temperature_and_stays_between_1_and_100() -> None:
    scale = LogitScale(0.07)
    assert scale().item() == pytest.approx(1 / 0.07)
    with torch.no_grad():
        scale.log.fill_(9.0)
    scale.clamp()
    assert scale().item() == pytest.approx(100.0)
    with torch.no_grad():
        scale.log.fill_(-3.0)
    scale.clamp()
    assert scale().item() == 1.0
