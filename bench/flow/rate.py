"""Rate: 50 a second with a burst of 10, by four workers: never above in any window, and reached."""

from __future__ import annotations

from bench.flow.app import act, q
from bench.flow.stage import Stage, until


def rate(stage: Stage, seed: int, *, seconds: float = 60.0, jobs: int = 50, burst: int = 10) -> dict[str, float]:
    """Run as many as the rate lets start in `seconds`, and look at every window."""
    stage.rule("flow", rate_jobs=jobs, rate_seconds=1.0, rate_burst=burst)
    for _ in range(4):
        stage.start("--processes", "1", "--concurrency", "8")
    stage.ready(4)
    wanted = int(seconds * jobs)
    q.enqueue_many(stage.connection, [act.job("g", n, 0.01, 0.0) for n in range(wanted + jobs * 5)])
    until(lambda: stage.one("SELECT count(*) FROM jobq.job_history") >= wanted, "the jobs", seconds * 2 + 60)
    rows = stage.connection.execute(
        "SELECT extract(epoch FROM started_at)::float8 FROM jobq.job_history ORDER BY 1"
    ).fetchall()
    by_start = sorted(one.start for one in stage.executions())
    starts = [start for start in by_start if start < by_start[0] + seconds]
    # By the rows, what was claimed (a runner's word of its start is in the ledger).
    return {
        "reached_percent": 100 * len(starts) / wanted,
        "most_above_a_window": max(excess(starts, jobs, burst), 0.0),
        "most_above_a_window_in_history": max(excess([row[0] for row in rows], jobs, burst), 0.0),
    }


def excess(starts: list[float], jobs: float, burst: int) -> float:
    """Return by how many jobs the fullest window exceeds burst + rate x its length, over all windows between two starts."""
    # In window [i, j]: j - i + 1 - burst - jobs * (t_j - t_i); the least of (i - jobs * t_i) seen so far decides.
    worst, least = float("-inf"), float("inf")
    for place, at in enumerate(starts):
        least = min(least, place - jobs * at)
        worst = max(worst, place - jobs * at - least + 1 - burst)
    return worst
