"""Jobs in very many new queues: workers go on, long jobs run once, the queues drain, and their memory is given back.

One insert of a job for later into each of 25,000 new queues: the oldest heartbeat is at most 5 s, and no job runs twice at
once. Then one due job in each of 10,000 queues: they drain at 2,000 jobs/s or more. When names have gone, others that
come instead take no more memory.
"""

from __future__ import annotations

import argparse
import time

from bench.cpu import resident_mib
from bench.reliability.app import long, noop
from bench.reliability.stage import Outcome, Stage, came, until

HEARTBEAT_S = 5.0
DRAIN_PER_S = 2_000.0
GROWTH = 1.25  # of the dispatcher's memory, for the same number of other names


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--queues", type=int, default=25_000, help="new queues in one insert (default: 25000)")
    parser.add_argument("--drained", type=int, default=10_000, help="queues with one due job each (default: 10000)")
    parser.add_argument("--rounds", type=int, default=3, help="how often other names come (default: 3)")
    parser.add_argument("--watch", type=float, default=60.0, help="seconds to watch after the insert (default: 60)")


def insert(stage: Stage, name: str, queues: int, delay: float) -> None:
    """Put a job into each of so many new queues, in one statement."""
    stage.connection.execute(
        "INSERT INTO jobq.job (task, queue, run_at) SELECT %s, %s || '-' || to_char(n, 'FM000000'), "
        "clock_timestamp() + %s * interval '1 second' FROM generate_series(1, %s::int) AS n",
        (noop.name, name, delay, queues),
    )


def new_queues(stage: Stage, given: argparse.Namespace, outcome: Outcome) -> None:
    stage.fleet(2, "--processes", "1", "--concurrency", "2")
    jobs = [long.enqueue(stage.connection, given.watch).id for _ in range(2)]
    until(lambda: len(stage.lines("start")) == 2, "the long jobs")
    with stage.beside(stage.heartbeat_ages()):
        insert(stage, "later", given.queues, 3600.0)
        until(lambda: len(stage.starts("end")) == 2, "the end of the long jobs", given.watch * 4 + 60, every=0.2)
    overlaps = sum(
        times[1] < min(line.at for line in stage.lines("end") if line.job == job)
        for job, times in stage.starts().items()
        if len(times) > 1
    )
    ended = came(lambda: stage.count("SELECT count(*) FROM jobq.job_history WHERE id = ANY (%s)", jobs) == 2, 30)
    claims = stage.one("SELECT coalesce(max(claims), 0) FROM jobq.job_history WHERE id = ANY (%s)", jobs)
    outcome.figures |= {"oldest_heartbeat_s": stage.oldest_heartbeat, "long_claims": claims, "overlaps": overlaps}
    outcome.demand(
        stage.oldest_heartbeat <= HEARTBEAT_S,
        f"after {given.queues} new queues the oldest heartbeat was {stage.oldest_heartbeat:.1f} s, at most 5 are promised",
    )
    outcome.demand(ended and claims == 1, f"long jobs: ended {ended}, claims {claims}")
    outcome.demand(not overlaps, f"{overlaps} jobs ran twice at once")


def drains(stage: Stage, given: argparse.Namespace, outcome: Outcome) -> None:
    stage.begin()
    (worker,) = stage.fleet(1)
    sizes, rates = [resident_mib(worker.pid)], []
    for number in range(1 + given.rounds):
        done = stage.count("SELECT count(*) FROM jobq.job_history")
        insert(stage, f"round-{number}", given.drained, 0.0)
        begun = time.monotonic()
        count = "SELECT count(*) FROM jobq.job_history"
        until(lambda: stage.count(count) == done + given.drained, "the drain", 600, every=0.05)  # noqa: B023 - called in this turn
        rates.append(given.drained / (time.monotonic() - begun))
        # Until the names have been forgotten.
        time.sleep(min(15.0, given.watch))
        sizes.append(resident_mib(worker.pid))
    outcome.figures |= {
        "drain_per_s": min(rates), "drains_per_s": [round(rate) for rate in rates],
        "dispatcher_mb": [round(size, 1) for size in sizes],
    }  # fmt: skip
    outcome.demand(
        min(rates) >= DRAIN_PER_S, f"{given.drained} queues drained at {min(rates):.0f} jobs/s, 2,000 are promised"
    )
    outcome.demand(
        sizes[-1] <= sizes[1] * GROWTH,
        f"the dispatcher's memory grew from {sizes[1]:.0f} to {sizes[-1]:.0f} MB with other names",
    )


def run(stage: Stage, given: argparse.Namespace) -> Outcome:
    outcome = Outcome()
    new_queues(stage, given, outcome)
    drains(stage, given, outcome)
    return outcome
