"""Snapshot: a drain while another transaction holds a REPEATABLE READ snapshot, beside the same drain without."""

from __future__ import annotations

import psycopg

from bench.figures import Figures, fifths
from bench.peers import Peer
from bench.workloads.base import Bench, Workload, on_postgres


def _drain(bench: Bench, peer: Peer, config: str, jobs: int, *, held: bool) -> tuple[float, list[float], float]:
    """Return the rate, the rates by fifths, and Postgres' microseconds a job."""
    with bench.run(peer, config, jobs) as run:
        run.call("fill", jobs=jobs, first=0)
        with psycopg.connect(run.url) as other:
            backend = other.info.backend_pid
            if held:
                # Nothing that is deleted from here on can be cleaned up.
                other.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
                other.execute("SELECT count(*) FROM pg_class")
            run.start_worker()
            run.wait_begun(0)
            before = run.spent({backend})
            end = run.wait_done(0, jobs, patience=120)
            spent = run.spent({backend})
        run.stop_workers()
        starts = run.check_all_started(0, jobs)
        counted = max(1, sum(start >= before.at for start in starts))
        return jobs / (end - min(starts)), fifths(starts), (spent.postgres - before.postgres) / counted * 1e6


def _snapshot(bench: Bench, peer: Peer, config: str) -> Figures:
    jobs = bench.number(min(50_000, peer.jobs(config) * 5 // 2), 5_000)
    free, free_fifths, free_cost = _drain(bench, peer, config, jobs, held=False)
    held, held_fifths, held_cost = _drain(bench, peer, config, jobs, held=True)
    shares = [with_it / without for with_it, without in zip(held_fifths, free_fifths, strict=True)]
    return {
        "free_per_s": free,
        "held_per_s": held,
        "held_over_free": held / free,
        **{f"fifth_{number}_held_over_free": share for number, share in enumerate(shares, 1)},
        **{f"fifth_{number}_free_per_s": found for number, found in enumerate(free_fifths, 1)},
        **{f"fifth_{number}_held_per_s": found for number, found in enumerate(held_fifths, 1)},
        "free_postgres_us_per_job": free_cost,
        "held_postgres_us_per_job": held_cost,
        "jobs": jobs,
    }


def _usual(peer: Peer) -> bool:
    return peer.name in ("jobq", "pgqueuer", "graphile-worker", "pg-boss")


SNAPSHOT = Workload(
    name="snapshot",
    about="jobs a second of a drain of 50,000 while a snapshot is held, beside the same without; shares by fifths",
    measure=_snapshot,
    can=on_postgres,
    usual=_usual,
    headline=(
        "held_per_s",
        "free_per_s",
        "held_over_free",
        *(f"fifth_{number}_held_over_free" for number in range(1, 6)),
    ),
    seconds=25,
)
