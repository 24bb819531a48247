"""Several executors on one job, in this process: one is lost midway, and the collection is that of an undisturbed run."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from bindery.bundle import Bundle, open_bundle
from bindery.collections import Store
from bindery.engine.engine import Engine, EnginePolicy
from bindery.jobs.executor import Embedding, Executor, ExecutorLost, File, LocalExecutor
from bindery.jobs.leases import Unit
from bindery.jobs.ledger import Ledger
from bindery.jobs.listing import Listing
from bindery.jobs.run import JobRun
from bindery.jobs.spec import JobSpec
from bindery.jobs.target import in_collections
from bindery.limits import Limits
from tests.jobs.conftest import Indexer, contents, generated


class Mortal:
    """An executor that dies with what it has in work once it has embedded so many files."""

    def __init__(self, inner: LocalExecutor, lives: int, embedded: Counter[str]) -> None:
        self.limits = inner.limits
        self._inner = inner
        self._lives = lives
        self._embedded = embedded

    @asynccontextmanager
    async def file(self, unit: Unit) -> AsyncIterator[File]:
        async with self._inner.file(unit) as file:
            yield _MortalFile(self, unit, file)

    async def embed(self, unit: Unit, file: File, key: str) -> Embedding:
        if self._lives <= 0:
            raise ExecutorLost("the machine is gone")
        made = await file.embedded(key)
        if self._lives <= 0:  # it was made, and nobody heard of it
            raise ExecutorLost("the machine is gone")
        self._lives -= 1
        self._embedded[unit.listed.name] += 1
        return made


class _MortalFile:
    def __init__(self, executor: Mortal, unit: Unit, file: File) -> None:
        self._executor = executor
        self._unit = unit
        self._file = file

    async def digest(self) -> str:
        return await self._file.digest()

    async def embedded(self, key: str) -> Embedding:
        return await self._executor.embed(self._unit, self._file, key)


class Pair:
    """Two executors side by side over one engine. The first is lost, and nobody takes its place."""

    def __init__(self, engine: Engine, lives: int) -> None:
        self.embedded: Counter[str] = Counter()
        self._engine = engine
        self._lives = lives

    @property
    def bundle(self) -> Bundle:
        return self._engine.bundle

    @property
    def precision(self) -> str:
        return self._engine.policy.precision

    @property
    def limits(self) -> Limits:
        return self._engine.limits

    async def work(self, spec: JobSpec, listing: Listing, employ: Callable[[Executor], Awaitable[None]]) -> None:
        inner = LocalExecutor(self._engine, spec, listing)
        mortal, steady = Mortal(inner, self._lives, self.embedded), Mortal(inner, 10**6, self.embedded)
        ended = await asyncio.gather(employ(mortal), employ(steady), return_exceptions=True)
        assert isinstance(ended[0], ExecutorLost)
        assert ended[1] is None


@pytest.mark.parametrize("lives", [0, 20])
def test_a_lost_executors_files_are_done_by_the_other_and_nothing_twice(run: Indexer, toy: Path, tmp_path: Path, lives: int) -> None:
    folder = generated(tmp_path / "media", 150)
    (folder / "copy.png").write_bytes((folder / "part0/0000.png").read_bytes())
    data = tmp_path / "pair"

    async def indexed() -> Counter[str]:
        engine = Engine(open_bundle(toy), Limits(), EnginePolicy(threads=1, decode_workers=1))
        await engine.start()
        ledger = Ledger(data)
        try:
            crew = Pair(engine, lives)
            with Store(data) as store:
                job = ledger.add(JobSpec(source=str(folder), collection="c"), "cli")
                report = await JobRun(crew, in_collections(store), ledger, job).run()
            assert str(report) == "151 listed = 151 done + 0 skipped + 0 failed"
            done = ledger.job(job.id)
            assert (done.encoded, done.copied) == (150, 1)
            return crew.embedded
        finally:
            ledger.close()
            await engine.stop(0)

    embedded = asyncio.run(indexed())
    assert set(embedded.values()) == {1}
    assert len(embedded) == 150
    run(folder)
    assert contents(data) == contents(run.data)
