"""A CLIP of ViT-L/14's size with random weights, in the hub's layout that Infinity loads. Run by the Python that has Infinity:

    python -m venv DIR
    DIR/bin/pip install torch==2.13.0 'infinity-emb[torch,server,vision]==0.0.78' 'transformers<4.48' 'optimum<1.25' aiohttp
    DIR/bin/pip uninstall torchvision        # where its build does not fit torch's: Infinity's CLIP does without
    DIR/bin/python bench/infinity_model.py MODEL_DIR word another ...

Each of the words is one token of its vocabulary, as usual words are in a real one.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import torch
from transformers import CLIPConfig, CLIPImageProcessor, CLIPModel, CLIPProcessor, CLIPTextConfig, CLIPTokenizer, CLIPVisionConfig
from transformers.models.clip.tokenization_clip import bytes_to_unicode

ROWS = 49_408  # of the token embedding, as OpenAI's
BEGIN, END = "<|startoftext|>", "<|endoftext|>"


def tokenizer_of(words: list[str], directory: Path) -> CLIPTokenizer:
    letters = list(bytes_to_unicode().values())
    merges: dict[tuple[str, str], None] = {}
    for word in words:
        pieces = [*word[:-1], word[-1] + "</w>"]
        while len(pieces) > 1:
            merges[pieces[0], pieces[1]] = None
            pieces[:2] = ["".join(pieces[:2])]
    tokens = [*letters, *(letter + "</w>" for letter in letters), *("".join(pair) for pair in merges), BEGIN, END]
    (directory / "vocab.json").write_text(json.dumps({token: id for id, token in enumerate(dict.fromkeys(tokens))}))
    (directory / "merges.txt").write_text("#version: 0.2\n" + "".join(f"{first} {second}\n" for first, second in merges))
    return CLIPTokenizer(str(directory / "vocab.json"), str(directory / "merges.txt"), model_max_length=77)


def main(directory: Path, words: list[str]) -> None:
    directory.mkdir(parents=True, exist_ok=True)
    tokenizer = tokenizer_of(words, directory)
    torch.manual_seed(0)
    special = {"bos_token_id": tokenizer.bos_token_id, "eos_token_id": tokenizer.eos_token_id, "pad_token_id": tokenizer.pad_token_id}
    text = CLIPTextConfig(vocab_size=ROWS, hidden_size=768, intermediate_size=3072, num_hidden_layers=12, num_attention_heads=12, **special)
    vision = CLIPVisionConfig(hidden_size=1024, intermediate_size=4096, num_hidden_layers=24, num_attention_heads=16, patch_size=14)
    CLIPModel(CLIPConfig.from_text_vision_configs(text, vision, projection_dim=768)).save_pretrained(directory)
    CLIPProcessor(CLIPImageProcessor(), tokenizer).save_pretrained(directory)


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2:])
