"""Latency: from the begin of the enqueue call to the start of the job, on a worker that has nothing else to do."""

from __future__ import annotations

import time

from bench.figures import Figures, percentile, spread
from bench.peers import Peer
from bench.workloads.base import Bench, Workload, on_postgres

# One each 15.13 ms: no multiple of anybody's timer, so that the calls meet every phase of it, as jitter would have them.
_RATE = 66.1
_IDLE = 1.5  # seconds after the warm-up: longer than a worker takes to find that it is idle


def _latency(bench: Bench, peer: Peer, config: str) -> Figures:
    jobs = bench.number(400, 100)
    with bench.run(peer, config, jobs + 1) as run:
        run.start_worker()
        run.warm_up()
        time.sleep(_IDLE)
        before = run.spent()
        said = run.call("enqueue", first=1, jobs=jobs, rate=_RATE)
        run.wait_done(1, jobs)
        spent = run.spent()
        run.stop_workers()
        starts, begun = run.check_all_started(1, jobs), run.record.begun(1, jobs)
        waited = [start - begin for start, begin in zip(starts, begun, strict=True)]
        return {
            **spread(waited, "start"),
            "start_max_ms": percentile(waited, 100) * 1000,
            **{name: said[name] for name in ("call_p50_ms", "call_p95_ms", "call_p99_ms")},
            "jobs": jobs,
            **spent.cores(before),
        }


def _usual(peer: Peer) -> bool:
    return on_postgres(peer) or peer.name == "dramatiq+rabbitmq"  # the quickest of those on brokers


LATENCY = Workload(
    name="latency",
    about="ms from the begin of the enqueue call to the start of the job, idle worker, 66 jobs/s; and of the call",
    measure=_latency,
    usual=_usual,
    headline=("start_p50_ms", "start_p95_ms", "start_p99_ms", "call_p50_ms", "call_p95_ms", "call_p99_ms"),
    seconds=12,
)
