"""Bulk: 50,000 jobs at once by the fastest way that a peer documents, no worker beside it."""

from __future__ import annotations

from bench.figures import Figures
from bench.peers import Peer
from bench.workloads.base import Bench, Workload, on_postgres


def _bulk(bench: Bench, peer: Peer, config: str) -> Figures:
    jobs = bench.number(50_000, 5_000)
    with bench.run(peer, config, jobs) as run:
        before = run.spent()
        said = run.call("fill", jobs=jobs, first=0)
        spent = run.spent()
        figures = {"jobs_per_s": said["jobs"] / said["seconds"], "jobs": jobs}
        if peer.broker is None:
            figures["postgres_us_per_job"] = (spent.postgres - before.postgres) / jobs * 1e6
        return figures


BULK = Workload(
    name="bulk",
    about="jobs a second enqueued in bulk, 50,000 of them",
    measure=_bulk,
    usual=on_postgres,
    headline=("jobs_per_s", "postgres_us_per_job", "jobs"),
    seconds=10,
)
