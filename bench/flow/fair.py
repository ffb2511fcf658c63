"""Turns: one tenant's 100,000 jobs, and another's one a second."""

from __future__ import annotations

import time

from bench.figures import percentile
from bench.flow.app import act, q
from bench.flow.stage import Stage

LENGTH = 0.05


def fair(stage: Stage, seed: int, *, on: bool = True, backlog: int = 100_000, seconds: int = 60) -> dict[str, float]:
    """Return how long after its enqueueing each job of the second tenant started."""
    if on:
        stage.rule("flow", group_mode="fair")
    stage.start()
    stage.ready(1)
    q.enqueue_many(stage.connection, [act.options(group="a").job("a", n, LENGTH, 0.0) for n in range(backlog)])
    enqueued = []
    begun = time.monotonic()
    for n in range(seconds):
        time.sleep(max(0.0, begun + n - time.monotonic()))
        enqueued.append(time.monotonic())
        act.options(group="b").enqueue(stage.connection, "b", n, LENGTH, 0.0)
    time.sleep(2)
    starts = {one.n: one.start for one in stage.executions() if one.group == "b"}
    latencies = [(starts[n] - at) * 1000 for n, at in enumerate(enqueued) if n in starts]
    stage.connection.execute("DELETE FROM jobq.job WHERE state <> 'running'")
    figures: dict[str, float] = {"jobs_of_b": seconds, "started": len(latencies), "job_ms": LENGTH * 1000}
    if latencies:
        figures |= {f"p{share}_ms": percentile(latencies, share) for share in (50, 99)}
        figures["p99_over_a_job_ms"] = figures["p99_ms"] - LENGTH * 1000
    return figures
