"""A transaction locks one of jobq's tables for 8 s: running jobs go on, and due jobs start within 1 s of the lock's end.

Two workers with long jobs; jobs that become due while `LOCK TABLE jobq.job` is held. Every job is claimed once.
"""

from __future__ import annotations

import argparse
import time

import psycopg

from bench.reliability.app import long, short
from bench.reliability.stage import Outcome, Stage, came, until

START_S = 1.0


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--runs", type=int, default=20, help="how often (default: 20)")
    parser.add_argument("--seconds", type=float, default=8.0, help="how long each lock is held (default: 8)")
    parser.add_argument("--table", default="job", help="which table (default: job)")
    parser.add_argument("--mode", default="ACCESS EXCLUSIVE", help="of the lock (default: ACCESS EXCLUSIVE)")


def once(stage: Stage, given: argparse.Namespace) -> float:
    """Lock once; return how many seconds after its end the last due job started."""
    running = [long.enqueue(stage.connection, given.seconds + 4.0).id for _ in range(4)]
    until(lambda: {line.job for line in stage.lines("start")} >= set(running), "the long jobs")
    with psycopg.connect(stage.url) as holder:
        # Due in the midst of it, and at its end.
        due = [
            short.options(delay=delay).enqueue(stage.connection, 0.01).id
            for delay in (0.5, given.seconds / 2, given.seconds)
        ]
        # Through a format: names and modes are not parameters.
        holder.execute(f"LOCK TABLE jobq.{given.table} IN {given.mode} MODE".encode())
        time.sleep(given.seconds)
        holder.rollback()
        ended = time.monotonic()
    came(lambda: set(due) <= set(stage.starts()), 90)
    late = max((stage.starts().get(job, [float("inf")])[0] - ended for job in due), default=0.0)
    came(lambda: stage.count("SELECT count(*) FROM jobq.job WHERE id = ANY (%s)", running + due) == 0, 120, every=0.1)
    return late


def run(stage: Stage, given: argparse.Namespace) -> Outcome:
    fleet = stage.fleet(2)
    late = [once(stage, given) for _ in range(given.runs)]
    claims = stage.count("SELECT coalesce(max(claims), 0) FROM jobq.job_history")
    again = stage.count("SELECT count(*) FROM jobq.job_history WHERE claims > 1")
    left = stage.count("SELECT count(*) FROM jobq.job")
    twice = sum(len(times) > 1 for times in stage.starts().values())
    outcome = Outcome(
        figures={
            "runs": given.runs, "jobs": stage.count("SELECT count(*) FROM jobq.job_history"), "most_claims": claims,
            "claimed_again": again, "started_twice": twice, "left": left, "start_after_lock_max_s": max(late),
            "starts_after_lock_s": [round(each, 2) for each in late],
        }
    )  # fmt: skip
    outcome.demand(not again, f"{again} jobs were claimed up to {claims} times")
    outcome.demand(not twice, f"{twice} jobs were started more than once")
    outcome.demand(not left, f"{left} jobs have not ended")
    outcome.demand(
        max(late) <= START_S, f"a due job started {max(late):.1f} s after the lock's end, at most 1 is promised"
    )
    outcome.demand(all(worker.poll() is None for worker in fleet), "a worker ended")
    return outcome
