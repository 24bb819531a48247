"""CLIP's byte-pair tokenizer as one `tokenizer.json`, from `vocab.json` and `merges.txt`.

Cleaning (ftfy, blanks, lower case) is not in it: `bindery.prepare.tokens` does that first, so that the ids are the
reference's, which the stock fast tokenizer's are not.
"""

from __future__ import annotations

from pathlib import Path

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers, processors

BEGIN, END = "<|startoftext|>", "<|endoftext|>"
# contractions; runs of letters; single digits; runs of anything else
_PIECES = r"'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+"


def build_clip_tokenizer(vocab: Path, merges: Path) -> Tokenizer:
    """A tokenizer that adds the begin and end tokens, and turns either written in a text into its id.

    Raises ``ValueError`` when the vocabulary lacks one of them, ``OSError`` when a file is missing.
    """
    for file in (vocab, merges):
        if not file.is_file():
            raise FileNotFoundError(f"{file} is missing; a CLIP checkpoint has vocab.json and merges.txt")
    model = models.BPE.from_file(
        str(vocab), str(merges), unk_token=END, continuing_subword_prefix="", end_of_word_suffix="</w>", fuse_unk=False
    )
    tokenizer = Tokenizer(model)
    begin_id, end_id = tokenizer.token_to_id(BEGIN), tokenizer.token_to_id(END)
    if begin_id is None or end_id is None:
        raise ValueError(f"{vocab} has no {BEGIN} or no {END}: not a CLIP vocabulary")
    tokenizer.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in (BEGIN, END)])
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(_PIECES), behavior="removed", invert=True),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{BEGIN} $A {END}", pair=f"{BEGIN} $A {END} $B {END}", special_tokens=[(BEGIN, begin_id), (END, end_id)]
    )
    return tokenizer
