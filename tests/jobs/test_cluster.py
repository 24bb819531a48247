"""A job on a Ray cluster of two nodes on this machine, one of which is lost midway."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import ray
from ray.cluster_utils import Cluster

from bindery.collections import Store
from bindery.errors import ClusterUnavailable
from bindery.jobs.cluster import RayCrew
from bindery.jobs.ledger import Job, Ledger
from bindery.jobs.report import Report
from bindery.jobs.run import JobRun
from bindery.jobs.spec import JobSpec
from bindery.jobs.target import in_collections
from bindery.settings import Settings
from tests.jobs.conftest import Indexer, contents, generated, spoil

MEMORY = 100 * 1024 * 1024
ROOT = Path(__file__).parents[2]

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("default")]


@pytest.fixture
def cluster(monkeypatch: pytest.MonkeyPatch) -> Iterator[Cluster]:
    """Its head takes no work, so that every executor is on a node that may be taken away."""
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")]))  # noqa: TID251 - the nodes' environment
    monkeypatch.setenv("RAY_ENABLE_UV_RUN_RUNTIME_ENV", "0")
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "object_store_memory": MEMORY})
    monkeypatch.setenv("RAY_ADDRESS", cluster.address)
    yield cluster
    ray.shutdown()
    cluster.shutdown()


class OnCluster:
    def __init__(self, toy: Path, data: Path) -> None:
        self.settings = Settings(bundle=str(toy), data_dir=data, threads=1, decode_workers=1)
        self.ledger = Ledger(data)
        self.job: Job | None = None

    async def index(self, source: Path) -> Report:
        crew = RayCrew(self.settings)
        self.job = self.ledger.add(JobSpec(source=str(source), collection="c"), "cli")
        with Store(self.settings.data_dir) as store:
            return await JobRun(crew, in_collections(store), self.ledger, self.job).run()

    async def in_full_swing(self) -> None:
        """Wait until two executors have files in work, and some are done."""
        while self.job is None or self.ledger.counts(self.job.id)["done"] < 60 or self.asked("count(DISTINCT lease_owner)", "leased") < 2:
            await asyncio.sleep(0.05)

    def asked(self, what: str, state: str) -> int:
        with self.ledger._database.reading() as db:
            return int(db.execute(f"SELECT {what} FROM units WHERE state = ?", (state,)).fetchone()[0])


def test_a_node_that_is_lost_midway_costs_nothing_but_time(cluster: Cluster, run: Indexer, toy: Path, tmp_path: Path) -> None:
    folder = generated(tmp_path / "media", 400)
    bad = spoil(folder, 6)
    nodes: list[Any] = [cluster.add_node(num_cpus=1, object_store_memory=MEMORY) for _ in range(2)]
    cluster.wait_for_nodes()
    on_cluster = OnCluster(toy, tmp_path / "cluster")

    async def disturbed() -> Report:
        indexing = asyncio.create_task(on_cluster.index(folder))
        await asyncio.wait([indexing, asyncio.create_task(on_cluster.in_full_swing())], return_when=asyncio.FIRST_COMPLETED)
        assert not indexing.done(), "it was done before a node could be lost"
        await asyncio.to_thread(cluster.remove_node, nodes[0], allow_graceful=False)
        return await indexing

    report = asyncio.run(disturbed())
    assert str(report) == f"406 listed = 400 done + 0 skipped + {len(bad)} failed"
    assert on_cluster.job is not None
    assert on_cluster.ledger.job(on_cluster.job.id).encoded == 400
    assert on_cluster.asked("max(attempt)", "done") == 2, "the lost node had nothing in work"
    on_cluster.ledger.close()
    run(folder)
    assert contents(on_cluster.settings.data_dir) == contents(run.data)


def test_without_a_node_to_work_on_the_job_waits(cluster: Cluster, toy: Path, tmp_path: Path) -> None:
    assert cluster.address
    folder = generated(tmp_path / "media", 4)
    on_cluster = OnCluster(toy, tmp_path / "cluster")
    with pytest.raises(ClusterUnavailable, match="no node"):
        asyncio.run(on_cluster.index(folder))
    assert on_cluster.job is not None
    job = on_cluster.ledger.job(on_cluster.job.id)
    assert (job.state, on_cluster.ledger.counts(job.id)["queued"]) == ("paused", 4)
    on_cluster.ledger.close()
