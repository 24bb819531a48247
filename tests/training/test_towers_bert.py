from __future__ import annotations

import torch

from training.starter.weights import bert_weights
from training.towers.bert import BertConfig, BertTower
from training.towers.package import tower_with_weights

CONFIG = BertConfig(vocabulary=30, context_length=12, width=16, layers=2, heads=4, mlp_width=32)
IDS = torch.tensor([[1, 5, 9, 2, 0, 0], [1, 7, 8, 6, 4, 2]])
MASK = torch.tensor([[1, 1, 1, 1, 0, 0], [1, 1, 1, 1, 1, 1]])


def test_padding_and_neighbours_do_not_move_a_vector() -> None:
    tower = BertTower(CONFIG).eval()
    with torch.no_grad():
        together = tower(input_ids=IDS, attention_mask=MASK)
        alone = tower(input_ids=IDS[:1, :4], attention_mask=MASK[:1, :4])
    torch.testing.assert_close(together[:1], alone, atol=1e-6, rtol=0)
    torch.testing.assert_close(together.norm(dim=1), torch.ones(2))


def test_published_bert_weights_fit_and_give_the_sum_of_their_parts() -> None:
    published = {
        "embeddings.word_embeddings.weight": torch.randn(30, 16),
        "embeddings.position_embeddings.weight": torch.randn(12, 16),
        "embeddings.token_type_embeddings.weight": torch.randn(2, 16),
        "embeddings.LayerNorm.weight": torch.ones(16),
        "embeddings.LayerNorm.bias": torch.zeros(16),
        "embeddings.position_ids": torch.arange(12)[None],
        "pooler.dense.weight": torch.zeros(16, 16),
        "pooler.dense.bias": torch.zeros(16),
    }
    shapes = {
        "attention.self.query": (16, 16),
        "attention.self.key": (16, 16),
        "attention.self.value": (16, 16),
        "attention.output.dense": (16, 16),
        "intermediate.dense": (32, 16),
        "output.dense": (16, 32),
    }
    for layer in range(2):
        for part, shape in shapes.items():
            published[f"encoder.layer.{layer}.{part}.weight"] = torch.randn(shape) / 4
            published[f"encoder.layer.{layer}.{part}.bias"] = torch.randn(shape[0]) / 4
        for norm in ("attention.output.LayerNorm", "output.LayerNorm"):
            published[f"encoder.layer.{layer}.{norm}.weight"] = torch.rand(16) + 0.5
            published[f"encoder.layer.{layer}.{norm}.bias"] = torch.randn(16) / 4
    tower = tower_with_weights(CONFIG, bert_weights(published), "made")
    with torch.no_grad():
        vectors = tower(input_ids=IDS, attention_mask=MASK)
        torch.testing.assert_close(vectors, _by_hand(published), atol=1e-5, rtol=0)


def _by_hand(w: dict[str, torch.Tensor]) -> torch.Tensor:
    """The same network written down again, one text at a time and one head at a time, from the published names."""
    norm = torch.nn.functional.layer_norm
    rows = []
    for ids in (IDS[0, :4], IDS[1]):
        x = w["embeddings.word_embeddings.weight"][ids] + w["embeddings.position_embeddings.weight"][: len(ids)]
        x = norm(x + w["embeddings.token_type_embeddings.weight"][0], (16,), eps=1e-12)
        for layer in range(2):
            p = {name.removeprefix(f"encoder.layer.{layer}."): t for name, t in w.items() if f"layer.{layer}." in name}
            q, k, v = (x @ p[f"attention.self.{n}.weight"].T + p[f"attention.self.{n}.bias"] for n in ("query", "key", "value"))
            heads = [torch.softmax(q[:, s] @ k[:, s].T / 2, dim=1) @ v[:, s] for s in (slice(i, i + 4) for i in range(0, 16, 4))]
            out = torch.cat(heads, dim=1) @ p["attention.output.dense.weight"].T + p["attention.output.dense.bias"]
            x = norm(x + out, (16,), p["attention.output.LayerNorm.weight"], p["attention.output.LayerNorm.bias"], 1e-12)
            hidden = torch.nn.functional.gelu(x @ p["intermediate.dense.weight"].T + p["intermediate.dense.bias"])
            out = hidden @ p["output.dense.weight"].T + p["output.dense.bias"]
            x = norm(x + out, (16,), p["output.LayerNorm.weight"], p["output.LayerNorm.bias"], 1e-12)
        mean = x.mean(dim=0)
        rows.append(mean / mean.norm())
    return torch.stack(rows)
