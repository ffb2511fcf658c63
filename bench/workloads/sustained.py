"""Sustained: 1,000 jobs a second for a minute, from four clients, a commit each, and one worker process."""

from __future__ import annotations

import time

from bench.figures import Figures, rate, spread
from bench.peers import Peer
from bench.run import Run
from bench.servers import sizes_mb
from bench.workloads.base import Bench, Workload, only_jobq

_RATE = 1_000
_CLIENTS = 4


def _sustained(bench: Bench, peer: Peer, config: str) -> Figures:
    seconds = bench.number(60, 5)
    each = _RATE * seconds // _CLIENTS
    jobs = each * _CLIENTS
    with bench.run(peer, config, 1 + jobs) as run:
        run.start_worker()
        run.warm_up()
        logged, before = bench.server.wal_bytes(), run.spent()
        # Clients that cannot keep up are stopped: what was asked for and not enqueued shows in `enqueued_per_s`.
        clients = [
            run.start("enqueue", first=1 + number * each, jobs=each, rate=_RATE / _CLIENTS, seconds=seconds + 5)
            for number in range(_CLIENTS)
        ]
        counts = [int(client.figures()["jobs"]) for client in clients]
        end, spent = time.monotonic(), run.spent()
        figures: Figures = {**spent.cores(before)}
        if peer.broker is None:
            figures["live_tables_mb"] = sizes_mb(run.connection, peer.live_tables)
            figures["wal_bytes_per_job"] = (bench.server.wal_bytes() - logged) / sum(counts)
        _finish(run, counts, each)
        run.stop_workers()
        stopped = time.monotonic()
        waited, backlog = [], 0
        for number, count in enumerate(counts):
            first = 1 + number * each
            for start, begin in zip(run.record.starts(first, count), run.record.begun(first, count), strict=True):
                # One that was never started has waited at least until now.
                waited.append((start or stopped) - begin)
                backlog += not start or start > end
        calls = [call for number, count in enumerate(counts) for call in run.record.begun(1 + number * each, count)]
        return {
            **spread(waited, "start"),
            "backlog_jobs": backlog,
            "enqueued_per_s": rate(calls),
            **figures,
            "seconds": seconds,
        }


def _finish(run: Run, counts: list[int], each: int) -> None:
    """Give the worker a while to catch up; one that cannot shows in the backlog and in the latencies."""
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        if run.peer.left is not None:
            if not run.left():
                return
        elif all(all(run.record.starts(1 + at * each, count)) for at, count in enumerate(counts)):
            return
        time.sleep(0.1)


SUSTAINED = Workload(
    name="sustained",
    about="1,000 jobs/s for 60 s from four clients: ms to the start, backlog at the end, size of the live tables",
    measure=_sustained,
    usual=only_jobq,
    headline=(
        "start_p50_ms",
        "start_p95_ms",
        "start_p99_ms",
        "backlog_jobs",
        "enqueued_per_s",
        "live_tables_mb",
        "postgres_cores",
        "worker_cores",
    ),
    seconds=75,
)
