from __future__ import annotations

import gzip
import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer, models, pre_tokenizers, processors

from bindery.errors import BundleDamaged, EmptyMedia, InvalidParameter
from bindery.prepare.tokens import TextTokenizer, clean_clip
from bindery.spec import TextSpec
from export.clip_tokenizer import build_clip_tokenizer

GOLDEN = Path(__file__).parents[1] / "golden" / "preprocess"
TOKENS = json.loads((GOLDEN / "tokens.json").read_text())
BEGIN, END = 49406, 49407


def byte_letters() -> list[str]:
    """The 256 printable letters that stand for bytes, in the vocabulary's order."""
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    return [chr(byte) for byte in printable] + [chr(256 + n) for n in range(256 - len(printable))]


@pytest.fixture(scope="module")
def clip_json(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """CLIP's tokenizer, its vocabulary derived from the merges as OpenAI derived it."""
    folder = tmp_path_factory.mktemp("clip")
    merges = gzip.decompress((GOLDEN / "merges.txt.gz").read_bytes()).decode()
    letters = byte_letters()
    joined = ["".join(line.split()) for line in merges.splitlines()[1:] if line]
    words = [*letters, *(letter + "</w>" for letter in letters), *joined, "<|startoftext|>", "<|endoftext|>"]
    (folder / "vocab.json").write_text(json.dumps({word: number for number, word in enumerate(words)}))
    (folder / "merges.txt").write_text(merges)
    build_clip_tokenizer(folder / "vocab.json", folder / "merges.txt").save(str(folder / "tokenizer.json"))
    return folder / "tokenizer.json"


@pytest.fixture(scope="module")
def clip(clip_json: Path) -> TextTokenizer:
    return TextTokenizer(clip_json, TextSpec(tokenizer="tokenizer.json"))


@pytest.fixture
def words_json(tmp_path: Path) -> Path:
    """A BERT-like tokenizer whose file asks for padding and a length of its own."""
    words = {"[PAD]": 0, "[UNK]": 1, "[CLS]": 2, "[SEP]": 3, "a": 4, "dog": 5, "Dog": 6}
    tokenizer = Tokenizer(models.WordPiece(words, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.TemplateProcessing(single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)])
    tokenizer.enable_padding(length=32)
    tokenizer.enable_truncation(max_length=4)
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    return tmp_path / "tokenizer.json"


def ids(tokenizer: TextTokenizer, text: str) -> list[int]:
    return tokenizer.encode(text).tensors["input_ids"].tolist()


@pytest.mark.parametrize("item", TOKENS, ids=lambda item: item["text"][:24].encode("ascii", "backslashreplace").decode() or "empty")
def test_ids_are_those_of_the_reference(clip: TextTokenizer, item: dict) -> None:
    assert ids(clip, item["text"]) == item["ids"]


def test_a_long_text_is_cut_keeps_its_end_token_and_says_so(clip: TextTokenizer) -> None:
    long, fits = clip.encode("dog " * 76), clip.encode("dog " * 75)
    assert long.truncated
    assert not fits.truncated
    assert long.tensors["input_ids"].tolist() == fits.tensors["input_ids"].tolist()
    assert long.tensors["input_ids"].dtype == np.int64
    assert long.tensors["input_ids"][-1] == END
    assert long.usage == {"tokens": 77.0}
    assert "attention_mask" not in long.tensors


def test_special_tokens_written_in_a_text_are_special_ids(clip: TextTokenizer) -> None:
    written = ids(clip, "a <|endoftext|> b")
    assert written[0] == BEGIN
    assert written.count(END) == 2


def test_cleaning_repairs_folds_and_lowers() -> None:
    assert clean_clip("  ＦＵＬＬ\n\twidth &amp; “quotes” Ã©  ") == 'full width & "quotes" é'


@given(st.text(max_size=60))
def test_any_text_has_ids_with_both_ends(clip: TextTokenizer, text: str) -> None:
    got = ids(clip, text)
    assert got[0] == BEGIN
    assert got[-1] == END
    assert len(got) <= 77


def test_the_files_own_padding_and_length_are_off(words_json: Path) -> None:
    spec = TextSpec(tokenizer="t", context_length=6, cleanup="none", pad_id=0, attention_mask=True)
    tokenizer = TextTokenizer(words_json, spec)
    prepared = tokenizer.encode("a dog a dog")
    assert prepared.tensors["input_ids"].tolist() == [2, 4, 5, 4, 5, 3]
    assert prepared.tensors["attention_mask"].tolist() == [1] * 6
    assert not prepared.truncated
    assert ids(tokenizer, "a dog a dog a") == [2, 4, 5, 4, 5, 3]
    assert tokenizer.encode("a dog a dog a").truncated


def test_cleanup_none_leaves_the_text_to_the_tokenizer(words_json: Path) -> None:
    spec = TextSpec(tokenizer="t", cleanup="none")
    assert ids(TextTokenizer(words_json, spec), "Dog") == [2, 6, 3]
    assert ids(TextTokenizer(words_json, spec.model_copy(update={"cleanup": "ftfy_lower"})), "Dog") == [2, 5, 3]


def test_ids_from_outside_get_their_ends_and_are_checked(clip: TextTokenizer) -> None:
    def encoded(given_ids: list[int]) -> list[int]:
        return clip.encode_ids(given_ids).tensors["input_ids"].tolist()

    whole = ids(clip, "a photo of a cat")
    assert encoded(whole) == whole
    assert encoded(whole[1:-1]) == whole
    assert encoded([320] * 100) == [BEGIN, *[320] * 75, END]
    assert clip.encode_ids([320] * 100).truncated
    with pytest.raises(InvalidParameter, match="49408 at position 1"):
        encoded([1, 49408])
    with pytest.raises(InvalidParameter, match="-1"):
        encoded([-1])
    with pytest.raises(EmptyMedia):
        encoded([])


def test_half_a_surrogate_is_an_invalid_parameter_or_repaired(words_json: Path, clip: TextTokenizer) -> None:
    with pytest.raises(InvalidParameter, match="surrogate"):
        TextTokenizer(words_json, TextSpec(tokenizer="t", cleanup="none")).encode("a \ud800 b")
    assert ids(clip, "a \ud800 b")[-1] == END


def test_a_broken_tokenizer_file_is_bundle_damage(tmp_path: Path) -> None:
    (tmp_path / "tokenizer.json").write_text("{")
    for name in ("tokenizer.json", "missing.json"):
        with pytest.raises(BundleDamaged, match=name):
            TextTokenizer(tmp_path / name, TextSpec(tokenizer=name))


def test_a_vocabulary_that_is_not_clips_is_refused(tmp_path: Path) -> None:
    (tmp_path / "vocab.json").write_text('{"a": 0}')
    (tmp_path / "merges.txt").write_text("#version: 0.2\n")
    with pytest.raises(ValueError, match="not a CLIP vocabulary"):
        build_clip_tokenizer(tmp_path / "vocab.json", tmp_path / "merges.txt")
    with pytest.raises(FileNotFoundError, match=r"gone\.txt"):
        build_clip_tokenizer(tmp_path / "vocab.json", tmp_path / "gone.txt")
