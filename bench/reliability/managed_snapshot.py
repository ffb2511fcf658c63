"""A drain of a queue with groups and a limit while an old snapshot is held: the last fifth is as fast as the first.

100,000 jobs of 20,000 groups, two of a group at a time, by one worker. What is deleted cannot be cleaned up meanwhile.
"""

from __future__ import annotations

import argparse

import psycopg

from bench.figures import fifths
from bench.reliability.app import noop
from bench.reliability.stage import Outcome, Stage, until
from jobq import operations

LEAST = 0.9


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--jobs", type=int, default=100_000, help="how many (default: 100000)")
    parser.add_argument("--groups", type=int, default=20_000, help="of so many groups (default: 20000)")
    parser.add_argument(
        "--mode", default="fair:2", help="how groups share: fair, fair:N, limited:N, ordered (default: fair:2)"
    )
    parser.add_argument("--free", action="store_true", help="hold no snapshot, to compare")


def by_fifths(looks: list[tuple[int, float]], jobs: int) -> list[float]:
    """Return Postgres' CPU microseconds a job in each fifth, as far as it was looked at; `looks`: jobs done, CPU seconds."""
    found = []
    for number in range(5):
        inside = [look for look in looks if jobs * number <= 5 * look[0] <= jobs * (number + 1)]
        if len(inside) > 1 and inside[-1][0] > inside[0][0]:
            found.append((inside[-1][1] - inside[0][1]) / (inside[-1][0] - inside[0][0]) * 1e6)
    return found


def run(stage: Stage, given: argparse.Namespace) -> Outcome:
    operations.configure(stage.connection, "jobq", "limited", groups=given.mode, limit=200, actor="bench")
    for begin in range(0, given.jobs, 20_000):
        stage.connection.execute(
            "INSERT INTO jobq.job (task, queue, group_key) SELECT %s, 'limited', 'g' || n %% %s::int "
            "FROM generate_series(%s::int, %s::int) AS n",
            (noop.name, given.groups, begin, min(given.jobs, begin + 20_000) - 1),
        )
    stage.connection.execute("VACUUM (ANALYZE) jobq.job")
    with psycopg.connect(stage.url) as other:
        if not given.free:
            other.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
            other.execute("SELECT count(*) FROM pg_class")
        without = {stage.connection.info.backend_pid, other.info.backend_pid}
        stage.fleet(1)
        looks: list[tuple[int, float]] = []

        def drained() -> bool:
            left = stage.count("SELECT count(*) FROM jobq.job")
            looks.append((given.jobs - left, stage.server.cpu(without)))
            return not left

        until(drained, "the drain", 1200, every=0.3)
    starts = [
        float(row[0])
        for row in stage.connection.execute("SELECT extract(epoch FROM finished_at) FROM jobq.job_history")
    ]
    rates = fifths(starts)
    costs = by_fifths(looks, given.jobs)
    outcome = Outcome(
        figures={
            "jobs": given.jobs, "jobs_per_s": given.jobs / max(max(starts) - min(starts), 1e-9),
            "fifths_per_s": [round(rate) for rate in rates], "last_over_first": rates[-1] / rates[0],
            # On a machine that others use as well, these say more than the rates.
            "postgres_us_per_job": [round(cost, 1) for cost in costs],
        }
    )  # fmt: skip
    outcome.demand(
        rates[-1] >= LEAST * rates[0],
        f"the last fifth ran at {rates[-1]:.0f} jobs/s, the first at {rates[0]:.0f}: {rates[-1] / rates[0]:.2f} of it",
    )
    return outcome
