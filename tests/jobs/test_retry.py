"""What time may heal is tried again, with waits; what it cannot heal is not; and nothing is tried for ever."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from bindery.engine.engine import Engine
from bindery.errors import BinderyError, DecoderKilled, QueueFull, SourceUnavailable, UnreadableMedia
from bindery.jobs import retry
from bindery.jobs.folder import FolderListing
from bindery.jobs.ledger import Ledger
from bindery.jobs.listing import Listed
from bindery.jobs.retry import with_retries
from bindery.media.source import Source
from tests.jobs.conftest import Indexer, contents, generated


@pytest.mark.parametrize(
    ("errors", "waits", "ends"),
    [
        ([SourceUnavailable, QueueFull], [1, 2], None),
        ([SourceUnavailable] * 9, [1, 2, 4, 8], SourceUnavailable),
        ([UnreadableMedia], [], UnreadableMedia),
        ([DecoderKilled], [], None),
        ([DecoderKilled] * 9, [], DecoderKilled),
        ([DecoderKilled, SourceUnavailable, DecoderKilled], [1], DecoderKilled),
    ],
)
async def test_each_class_has_its_tries(errors: list[type[BinderyError]], waits: list[float], ends: type[BinderyError] | None) -> None:
    left = list(errors)
    waited: list[float] = []

    async def work() -> str:
        if left:
            raise left.pop(0)("it failed")
        return "done"

    async def sleep(seconds: float) -> None:
        waited.append(seconds)

    if ends is None:
        assert await with_retries(work, sleep) == "done"
    else:
        with pytest.raises(ends):
            await with_retries(work, sleep)
    assert len(waited) == len(waits)
    assert all(0.75 * wait <= found <= 1.25 * wait for wait, found in zip(waits, waited, strict=True))


def test_a_passing_read_error_is_no_broken_file() -> None:
    assert isinstance(retry.read_error("x", OSError(5, "Input/output error")), SourceUnavailable)
    assert isinstance(retry.read_error("x", PermissionError(13, "Permission denied")), UnreadableMedia)


class Flaky:
    """A folder whose files cannot be opened for a number of times, by their names."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.away: dict[str, int] = {}
        self.asked: Counter[str] = Counter()
        opened = FolderListing.opened

        @contextmanager
        def flaky(listing: FolderListing, listed: Listed) -> Iterator[Source]:
            self.asked[listed.name] += 1
            if self.asked[listed.name] <= self.away.get(listed.name, self.away.get("*", 0)):
                raise SourceUnavailable(f"{listed.name} is away")
            with opened(listing, listed) as source:
                yield source

        monkeypatch.setattr(FolderListing, "opened", flaky)
        monkeypatch.setattr(retry, "_FIRST_WAIT_S", 0.0)


def test_files_that_come_back_are_done_and_those_that_do_not_have_their_code(
    run: Indexer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    flaky = Flaky(monkeypatch)
    folder = generated(tmp_path / "media", 12)
    (folder / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\n broken")
    flaky.away = {"part0/0000.png": 2, "part1/0001.wav": 99}
    report = run(folder)
    assert str(report) == "13 listed = 11 done + 0 skipped + 2 failed"
    assert {code: found.examples for code, found in report.errors.items()} == {
        "source_unavailable": ["part1/0001.wav"], "unreadable_media": ["broken.png"],
    }  # fmt: skip
    assert flaky.asked == Counter(dict.fromkeys(contents(run.data), 1) | {"part0/0000.png": 3, "part1/0001.wav": 5, "broken.png": 1})
    flaky.away = {}
    assert str(run(folder, retry_failed=True)) == "2 listed = 1 done + 0 skipped + 1 failed"


def test_a_source_that_is_away_pauses_the_job_and_loses_no_file(run: Indexer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    flaky = Flaky(monkeypatch)
    folder = generated(tmp_path / "media", 30)
    flaky.away = {"*": 999}
    with pytest.raises(SourceUnavailable):
        run(folder)
    ledger = Ledger(run.data)
    (job,) = ledger.jobs()
    assert (job.state, ledger.counts(job.id)["leased"]) == ("paused", 0)
    assert ledger.counts(job.id)["failed"] < 30
    ledger.close()
    flaky.away = {}
    assert str(run.again(job.id)) == "30 listed = 30 done + 0 skipped + 0 failed"


def test_a_file_that_kills_the_decoder_twice_is_given_up(run: Indexer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    kills: Counter[str] = Counter()
    embed = Engine.embed

    async def killed(engine: Engine, modality: str, source: object, *more: object, **named: object) -> object:
        name = source.name if isinstance(source, Source) else ""
        if name in ("part0/0000.png", "part2/0002.png") and (name == "part0/0000.png" or not kills[name]):
            kills[name] += 1
            raise DecoderKilled(f"decoding {name} ended its process")
        return await embed(engine, modality, source, *more, **named)  # type: ignore[arg-type]

    monkeypatch.setattr(Engine, "embed", killed)
    report = run(generated(tmp_path / "media", 6))
    assert (str(report), list(report.errors)) == ("6 listed = 5 done + 0 skipped + 1 failed", ["decoder_killed"])
    assert kills == Counter({"part0/0000.png": 2, "part2/0002.png": 1})
