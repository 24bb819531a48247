from __future__ import annotations

import io
import pickle
from pathlib import Path

import pytest

from bindery.errors import UnreadableMedia
from bindery.media.source import Source


def test_a_path_bytes_and_a_file_hold_the_same_bytes(tmp_path: Path) -> None:
    path = tmp_path / "a.bin"
    path.write_bytes(b"0123456789")
    for source in (Source.of(path), Source.of(str(path)), Source.of(b"0123456789"), Source.of(io.BytesIO(b"0123456789"))):
        assert source.size_bytes == 10
        assert source.head(4) == b"0123"
        with source.open() as file:
            file.seek(7)
            assert file.read() == b"789"


def test_a_source_is_named_by_its_file_or_by_the_caller(tmp_path: Path) -> None:
    assert Source.of(tmp_path / "dog.wav").name == "dog.wav"
    assert Source.of(b"x", "upload.png").name == "upload.png"
    assert Source.of(Source.of(b"x"), "renamed").name == "renamed"


def test_a_source_travels_to_another_process() -> None:
    source = Source.of(b"abc", "a")
    assert pickle.loads(pickle.dumps(source)) == source


def test_a_missing_file_is_named_without_its_folder(tmp_path: Path) -> None:
    source = Source.of(tmp_path / "gone.png")
    for use in (source.open, lambda: source.size_bytes):
        with pytest.raises(UnreadableMedia, match=r"^gone\.png: cannot be opened"):
            use()


def test_a_file_opened_as_text_is_refused() -> None:
    with pytest.raises(TypeError, match="binary"):
        Source.of(io.StringIO("text"))  # type: ignore[arg-type]


def test_what_is_no_input_at_all_is_refused_by_its_type() -> None:
    with pytest.raises(TypeError, match="int is no input"):
        Source.of(7)  # type: ignore[arg-type]


def test_neither_or_both_of_path_and_data_is_a_mistake() -> None:
    with pytest.raises(ValueError, match="exactly one"):
        Source("x")
    with pytest.raises(ValueError, match="exactly one"):
        Source("x", Path("x"), b"x")
