"""How fast: steps of durable tasks by one worker, and what many jobs that wait cost, until a signal wakes them."""

from __future__ import annotations

import time

from bench.flow.app import q, sleeping, stepping, stepping_async, waiting
from bench.flow.stage import Stage, until


def steps(stage: Stage, seed: int, *, kind: str = "async", jobs: int = 1_000, count: int = 20) -> dict[str, float]:
    """Run durable jobs of `count` no-ops each by one worker."""
    task = stepping_async if kind == "async" else stepping
    with stage.connection.transaction():
        q.enqueue_many(stage.connection, [task.job(count) for _ in range(jobs)])
    stage.connection.execute("VACUUM ANALYZE jobq.job")
    stage.start()
    until(lambda: stage.one("SELECT count(*) FROM jobq.job_history") == jobs, "the end")
    assert stage.one("SELECT count(*) FROM jobq.job_step") == jobs * count
    query = "SELECT extract(epoch FROM max(finished_at) - min(started_at))::float8 FROM jobq.job_history"
    return {"steps": jobs * count, "steps_per_s": jobs * count / float(stage.one(query))}


def waiters(
    stage: Stage, seed: int, *, jobs: int = 100_000, kind: str = "signal", woken: int = 400, rate: float = 40.0
) -> dict[str, float]:
    """Let many jobs wait: what they cost while nothing happens, and how soon a signal wakes one."""
    with stage.connection.transaction():
        task = waiting.job(0) if kind == "signal" else sleeping.job(3600.0)
        refs = q.enqueue_many(stage.connection, [task] * jobs)
    stage.connection.execute("VACUUM ANALYZE jobq.job")
    stage.start()
    idle = "SELECT count(*) FROM jobq.job WHERE state = 'ready' AND run_at > now()"
    began = time.monotonic()
    until(lambda: stage.one(idle) == jobs, "all wait", timeout=600)
    parked = time.monotonic() - began
    stage.connection.execute("VACUUM ANALYZE jobq.job, jobq.job_step")
    until(lambda: stage.one("SELECT count(*) FROM jobq.job_wakeup") == 0, "the wakeups")
    # After a burst, one worker polls for all for some seconds.
    until(lambda: stage.one("SELECT last_value FROM jobq.notify_mode") == 1, "the end of polling")
    time.sleep(5)
    commits = "SELECT xact_commit FROM pg_stat_database WHERE datname = current_database()"
    before, since = stage.one(commits), time.monotonic()
    time.sleep(20)
    # One commit is the first question's own.
    quiet = (stage.one(commits) - before - 1) / (time.monotonic() - since)
    found = {"jobs": float(jobs), "parked_per_s": jobs / parked, "commits_per_s_idle": quiet}
    if kind == "signal":
        for ref in refs[:woken]:
            q.send_signal(stage.connection, ref, "go", time.time())
            time.sleep(1 / rate)
        until(lambda: stage.one("SELECT count(*) FROM jobq.job_history") == woken, "the woken")
        waits = sorted(
            1000 * float(row[0]) for row in stage.connection.execute("SELECT result::float8 FROM jobq.job_history")
        )
        found |= {"p50_ms": waits[woken // 2], "p99_ms": waits[woken * 99 // 100], "worst_ms": waits[-1]}
    return found
