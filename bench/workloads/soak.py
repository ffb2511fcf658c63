"""Soak (jobq): ten minutes at half the top rate; rates, latencies, sizes and log by the minute."""

from __future__ import annotations

import time

from bench.figures import Figures, percentile, rate
from bench.peers import Peer
from bench.servers import sizes_mb
from bench.workloads.base import Bench, Workload, only_jobq


def _soak(bench: Bench, peer: Peer, config: str) -> Figures:
    minutes, minute = (2, 5.0) if bench.quick else (10, 60.0)
    per_second = round(_top(bench, peer, config) / 2)
    jobs = round(per_second * minutes * minute)
    figures: Figures = {"rate_per_s": per_second}
    with bench.run(peer, config, 1 + jobs) as run:
        run.start_worker()
        run.warm_up()
        client = run.start("feed", first=1, jobs=jobs, rate=per_second, seconds=minutes * minute)
        run.wait_begun(1)
        origin, before, logged = time.monotonic(), run.spent(), bench.server.wal_bytes()
        for number in range(1, minutes + 1):
            time.sleep(max(0.0, origin + number * minute - time.monotonic()))
            figures[f"minute_{number}_live_tables_mb"] = sizes_mb(run.connection, peer.live_tables)
            figures[f"minute_{number}_database_mb"] = (
                bench.server.row(f"SELECT pg_database_size('{run.connection.info.dbname}')")[0] / 2**20
            )
            now_logged = bench.server.wal_bytes()
            figures[f"minute_{number}_wal_mb"] = (now_logged - logged) / 2**20
            logged = now_logged
        figures |= run.spent().cores(before)
        said = client.figures()
        run.wait_done(1, int(said["jobs"]), patience=120)
        run.stop_workers()
        figures["client_behind_s"] = said["behind_s"]
        run.check_all_started(1, int(said["jobs"]))
        for number in range(1, minutes + 1):
            first = 1 + round((number - 1) * minute * per_second)
            share = min(round(minute * per_second), 1 + int(said["jobs"]) - first)
            starts, begun = run.record.starts(first, share), run.record.begun(first, share)
            waited = sorted(start - begin for start, begin in zip(starts, begun, strict=True))
            figures[f"minute_{number}_jobs_per_s"] = rate(starts)
            figures[f"minute_{number}_start_p50_ms"] = percentile(waited, 50) * 1000
            figures[f"minute_{number}_start_p99_ms"] = percentile(waited, 99) * 1000
    return figures


def _top(bench: Bench, peer: Peer, config: str) -> float:
    """Return the rate of a drain."""
    jobs = bench.number(40_000, 2_000)
    with bench.run(peer, config, jobs) as run:
        run.call("fill", jobs=jobs, first=0)
        run.start_worker()
        run.wait_done(0, jobs)
        run.stop_workers()
        return rate(run.check_all_started(0, jobs))


SOAK = Workload(
    name="soak",
    about="ten minutes at half the rate of a drain: jobs/s, ms to the start, sizes and log, by the minute",
    measure=_soak,
    can=only_jobq,
    default=False,
    rounds=1,
    seconds=640,
)
