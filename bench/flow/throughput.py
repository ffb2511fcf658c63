"""How fast: ordered jobs, jobs in turns, and what a million blocked ones cost a queue without groups."""

from __future__ import annotations

import statistics

from bench.flow.app import noop, plain, q
from bench.flow.stage import Stage, until


def throughput(
    stage: Stage, seed: int, *, mode: str = "ordered", jobs: int = 40_000, groups: int = 1000
) -> dict[str, float]:
    """Drain no-op jobs of `groups`, by one worker with its defaults."""
    stage.rule("flow", group_mode=mode)
    q.enqueue_many(stage.connection, [noop.options(group=f"g{n % groups}").job(n) for n in range(jobs)])
    stage.start("--drain")
    until(lambda: stage.one("SELECT count(*) FROM jobq.job") == 0, "the end")
    return {"jobs": jobs, "groups": groups, "jobs_per_s": jobs / _seconds(stage)}


def blocked(
    stage: Stage, seed: int, *, jobs: int = 60_000, waiting: int = 1_000_000, rounds: int = 5
) -> dict[str, float]:
    """Drain a queue without groups, with and without many jobs that wait in one ordered group; pairs, interleaved."""
    stage.rule("flow", group_mode="ordered")
    # The head of the group waits for its retry, as it would for hours.
    copy = (
        "INSERT INTO jobq.job (task, queue, args, group_key, run_at) SELECT 'bench.noop', 'flow', '{}', 'one', "
        "now() + interval '1 day' FROM generate_series(1, %s)"
    )
    ratios, rates = [], []
    for _ in range(rounds):
        pair = []
        for load in (0, waiting):
            stage.connection.execute("TRUNCATE jobq.job, jobq.group_ready, jobq.job_history")
            if load:
                stage.connection.execute(copy.encode(), (load,))
            q.enqueue_many(stage.connection, [plain.job(n) for n in range(jobs)])
            stage.connection.execute("VACUUM ANALYZE jobq.job")
            worker = stage.start("--drain")
            until(lambda: stage.one("SELECT count(*) FROM jobq.job_history") == jobs, "the end")
            worker.wait(30)
            pair.append(jobs / _seconds(stage))
        rates.append(pair[0])
        ratios.append(pair[1] / pair[0])
    return {
        "jobs_per_s": statistics.median(rates), "with_blocked": statistics.median(ratios),
        "least": min(ratios), "most": max(ratios),
    }  # fmt: skip


def _seconds(stage: Stage) -> float:
    query = "SELECT extract(epoch FROM max(finished_at) - min(started_at))::float8 FROM jobq.job_history"
    return float(stage.one(query))
