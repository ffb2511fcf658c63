"""Drain: no-op jobs that wait in the store are worked off. By one worker process, by two."""

from __future__ import annotations

from bench.figures import Figures
from bench.peers import Peer
from bench.workloads.base import Bench, Workload, on_postgres


def _drain(bench: Bench, peer: Peer, config: str) -> Figures:
    """Return the rate from the first start to the moment when nothing is left, and the CPU time and log of a job."""
    jobs = bench.number(peer.jobs(config), 2_000)
    with bench.run(peer, config, jobs) as run:
        run.call("fill", jobs=jobs, first=0)
        run.start_worker()
        run.wait_begun(0)
        before, logged = run.spent(), bench.server.wal_bytes()
        end = run.wait_done(0, jobs)
        after, logged = run.spent(), bench.server.wal_bytes() - logged
        run.stop_workers()
        starts = run.check_all_started(0, jobs)
        # What had started before the first look is not in the costs.
        counted = max(1, sum(start >= before.at for start in starts))
        figures: Figures = {
            "jobs_per_s": jobs / (end - min(starts)),
            "jobs": jobs,
            **after.per_job(before, counted),
        }
        if peer.broker is None:
            figures["wal_bytes_per_job"] = logged / counted
        return figures


def _drain_by_two(bench: Bench, peer: Peer, config: str) -> Figures:
    """Return the rate of two worker processes in the second half: in the first one may still be starting."""
    jobs = peer.jobs(config)
    jobs = bench.number(2 * jobs if jobs >= 20_000 else jobs, 4_000)
    with bench.run(peer, config, jobs) as run:
        run.call("fill", jobs=jobs, first=0)
        for _ in range(2):
            run.start_worker()
        end = run.wait_done(0, jobs)
        run.stop_workers()
        starts = sorted(run.check_all_started(0, jobs))
        half = jobs // 2
        return {"jobs_per_s": (jobs - half) / (end - starts[half]), "jobs": jobs}


DRAIN = Workload(
    name="drain",
    about="no-op jobs a second, one worker process, from a store that holds them all; CPU time of each",
    measure=_drain,
    configs="all",
    headline=(
        "jobs_per_s",
        "postgres_us_per_job",
        "worker_us_per_job",
        "broker_us_per_job",
        "wal_bytes_per_job",
        "jobs",
    ),
    seconds=10,
)

DRAIN_2 = Workload(
    name="drain-2",
    about="the same by two worker processes, in the second half",
    measure=_drain_by_two,
    usual=on_postgres,
    headline=("jobs_per_s", "jobs"),
    seconds=12,
)
