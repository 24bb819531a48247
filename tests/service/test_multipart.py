"""The form parser: the same parts however the bytes are cut, and nothing left on the disk."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bindery.errors import MalformedMultipart, TooManyBytes, TooManyItems
from bindery.limits import Limits
from service.multipart import FieldPart, FilePart, form_parser
from service.spool import MEMORY_BYTES

TYPE = "multipart/form-data; boundary=edge"
BODY = (
    b'--edge\r\nContent-Disposition: form-data; name="labels"\r\n\r\na dog\r\n'
    b'--edge\r\ncontent-disposition: form-data; name="file"; filename="\xd1\x8f.wav"\r\nContent-Type: audio/wav\r\n\r\n'
    b"\r\n--edg\r\n\x00\r\n"
    b'--edge\r\nContent-Disposition: form-data; name="labels"\r\n\r\n\r\n'
    b"--edge--\r\n"
)


def parts_of(body: bytes, cuts: list[int], spool: Path) -> list[object]:
    with form_parser(TYPE, Limits(), spool) as parser:
        edges = [0, *sorted(cut % len(body) for cut in cuts), len(body)]
        pieces = [body[start:end] for start, end in pairwise(edges)]
        for piece in pieces[:-1]:
            parser.feed(piece)
        parser.finish(pieces[-1])
        return [(p.field, p.text) if isinstance(p, FieldPart) else (p.field, p.source.name, p.source.data) for p in parser.parts]


@given(cuts=st.lists(st.integers(0, 10_000), max_size=8))
@settings(deadline=None, max_examples=60)
def test_the_parts_do_not_depend_on_how_the_bytes_come(cuts: list[int]) -> None:
    expected = [("labels", "a dog"), ("file", "я.wav", b"\r\n--edg\r\n\x00"), ("labels", "")]
    assert parts_of(BODY, cuts, Path()) == expected


@given(junk=st.binary(max_size=300))
@settings(deadline=None, max_examples=100)
def test_noise_is_malformed_and_nothing_else(junk: bytes) -> None:
    with pytest.raises(MalformedMultipart), form_parser(TYPE, Limits(), Path()) as parser:
        parser.finish(b"--edge\r\n" + junk)


def test_fields_are_bounded_in_bytes_and_in_number() -> None:
    def part(name: str, size: int) -> bytes:
        return f'--edge\r\nContent-Disposition: form-data; name="{name}"\r\n\r\n{"x" * size}\r\n'.encode()

    few = Limits(field_bytes=100, form_fields=1, items_text=1, items_media=1, labels=1, templates=1)
    with form_parser(TYPE, few, Path()) as parser:
        parser.finish(part("a", 100) * 4 + b"--edge--\r\n")
        assert len(parser.parts) == 4
    with pytest.raises(TooManyBytes, match="limit field_bytes"), form_parser(TYPE, few, Path()) as parser:
        parser.finish(part("a", 101))
    with pytest.raises(TooManyItems), form_parser(TYPE, few, Path()) as parser:
        parser.finish(part("a", 1) * 5)


def test_a_large_file_goes_to_disk_and_away_again(tmp_path: Path) -> None:
    data = bytes(range(256)) * (MEMORY_BYTES // 128)
    head = b'--edge\r\nContent-Disposition: form-data; name="file"; filename="big"\r\n\r\n'
    with form_parser(TYPE, Limits(), tmp_path) as parser:
        parser.finish(head + data + b"\r\n--edge--\r\n")
        (part,) = parser.parts
        assert isinstance(part, FilePart)
        assert part.source.path is not None
        assert part.source.path.read_bytes() == data
    assert list(tmp_path.iterdir()) == []


def test_what_lies_on_the_disk_is_removed_when_the_form_breaks(tmp_path: Path) -> None:
    head = b'--edge\r\nContent-Disposition: form-data; name="file"; filename="big"\r\n\r\n'
    with form_parser(TYPE, Limits(file_bytes=3 * MEMORY_BYTES), tmp_path) as parser:
        parser.feed(head + b"x" * (2 * MEMORY_BYTES))
        assert len(list(tmp_path.iterdir())) == 1
        with pytest.raises(TooManyBytes, match="big has more than"):
            parser.feed(b"x" * (2 * MEMORY_BYTES))
    assert list(tmp_path.iterdir()) == []
