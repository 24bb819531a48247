"""Object stores: against a real server of the S3 protocol on loopback."""

from __future__ import annotations

from pathlib import Path

import pytest

from bindery.errors import InvalidParameter, SourceUnavailable, UnreadableMedia
from bindery.jobs.listing import Listed, Rule, Unlisted, open_listing
from bindery.jobs.sources import spool
from tests.jobs.conftest import put


def test_a_prefix_is_a_folder(s3: object) -> None:
    put(
        s3,
        {
            "shelf/a.png": b"a",
            "shelf/in/b.wav": b"bb",
            "shelf/": b"",
            "shelf/in/": b"",
            "shelf/.hidden/c.png": b"c",
            "shelf2/d.png": b"d",
            "e.png": b"e",
        },
    )
    listing = open_listing("s3://archive/shelf", rules=[Rule("in/**", "audio")])
    found = {entry.name: entry for entry in listing if isinstance(entry, Listed)}
    assert {name: (entry.uri, entry.size, entry.modality) for name, entry in found.items()} == {
        "a.png": ("s3://archive/shelf/a.png", 1, None),
        "in/b.wav": ("s3://archive/shelf/in/b.wav", 2, "audio"),
    }
    with listing.opened(found["in/b.wav"]) as source:
        assert source.head(9) == b"bb"
    assert [entry.name for entry in open_listing("s3://archive/shelf/", include=["*.png"]) if isinstance(entry, Listed)] == ["a.png"]
    whole = {entry.name for entry in open_listing("s3://archive") if isinstance(entry, Listed)}
    assert {"shelf/a.png", "shelf2/d.png", "e.png"} <= whole


def test_more_than_a_page_is_listed_in_order(s3: object) -> None:
    put(s3, {f"many/{number:04}.txt": b"x" for number in range(1005)})
    names = [entry.name for entry in open_listing("s3://archive/many") if isinstance(entry, Listed)]
    assert names == [f"{number:04}.txt" for number in range(1005)]


def test_what_changed_or_vanished_after_listing_is_not_taken(s3: object, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(spool, "IN_MEMORY", 1000)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    put(s3, {"change/a.bin": b"a" * 3_000_000, "change/b.bin": b"b", "change/c.bin": b"c"})
    listing = open_listing("s3://archive/change")
    a, b, c = (entry for entry in listing if isinstance(entry, Listed))
    with listing.opened(a) as source:
        assert source.path is not None
        assert source.size_bytes == 3_000_000
    assert list(tmp_path.iterdir()) == []
    put(s3, {"change/b.bin": b"B"})
    with pytest.raises(UnreadableMedia, match="changed"), listing.opened(b):
        pass
    s3.delete_object(Bucket="archive", Key="change/c.bin")  # type: ignore[attr-defined]
    with pytest.raises(UnreadableMedia, match="is not there"), listing.opened(c):
        pass


@pytest.mark.parametrize("source", ["s3://no-such-bucket/x", "s3://", "s3:///key", "s3://archive/../x", "s3://archive/a//b"])
def test_what_is_no_place_is_refused_as_a_whole(s3: object, source: str) -> None:
    del s3
    with pytest.raises(InvalidParameter):
        list(open_listing(source))


def test_a_manifest_names_objects(s3: object, tmp_path: Path) -> None:
    put(s3, {"named/a.png": b"a"})
    (tmp_path / "list.csv").write_text("uri,place\ns3://archive/named/a.png,yard\ns3://archive/named/none.png,\ns3://archive,\n")
    listing = open_listing(str(tmp_path / "list.csv"))
    entries = list(listing)
    (found,) = (entry for entry in entries if isinstance(entry, Listed))
    assert (found.name, found.size, found.metadata) == ("s3://archive/named/a.png", 1, {"place": "yard"})
    assert found.fingerprint
    with listing.opened(found) as source:
        assert source.head(9) == b"a"
    bad = {entry.uri: type(entry.error) for entry in entries if isinstance(entry, Unlisted)}
    assert bad == {"s3://archive/named/none.png": UnreadableMedia, "s3://archive": InvalidParameter}


def test_a_store_that_does_not_answer_may_be_tried_again(s3: object, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    del s3
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")  # the port of discard, where nobody listens
    with pytest.raises(SourceUnavailable, match="cannot be fetched"):
        list(open_listing("s3://archive/shelf"))
    (tmp_path / "list.csv").write_text("uri\ns3://archive/named/a.png\n")
    with pytest.raises(SourceUnavailable):  # not: a file that failed
        list(open_listing(str(tmp_path / "list.csv")))
