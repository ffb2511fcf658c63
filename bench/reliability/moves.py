"""30,000 moves of waiting jobs between limited queues, against their claims: a limit is never exceeded.

Queue `a` takes turns; queue `b` is ordered and runs one job at a time. Operators move and snooze jobs to and fro while
two real workers claim. The database is looked at all the while, and the ledger says which jobs ran when.
"""

from __future__ import annotations

import argparse
import random
import threading
import time

from bench.reliability.app import q, visit
from bench.reliability.stage import Outcome, Stage, came
from jobq import operations

FIELD = 300
GROUPS = 5


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--moves", type=int, default=30_000, help="how many (default: 30000)")
    parser.add_argument("--length", type=float, default=0.01, help="seconds of a job (default: 0.01)")


def run(stage: Stage, given: argparse.Namespace) -> Outcome:
    operations.configure(stage.connection, "jobq", "a", groups="fair", actor="bench")
    operations.configure(stage.connection, "jobq", "b", groups="ordered", limit=1, actor="bench")
    fleet = stage.fleet(2, "--processes", "1", "--concurrency", "8")
    moved = 0
    most_b = most_group = looks = 0

    def move(done: threading.Event) -> None:
        nonlocal moved
        chooser = random.Random()
        with stage.connect() as own:
            while not done.is_set():
                # Those that are claimed next.
                rows = own.execute(
                    "SELECT id, queue FROM jobq.job WHERE state = 'waiting' OR state = 'ready' ORDER BY run_at, id LIMIT 20"
                ).fetchall()
                some = chooser.sample(rows, min(4, len(rows)))
                for source, target in (("a", "b"), ("b", "a")):
                    ids = [job for job, queue in some if queue == source]
                    if ids:
                        moved += len(operations.move(own, "jobq", ids, queue=target, actor="bench").done)

    def look(done: threading.Event) -> None:
        nonlocal most_b, most_group, looks
        with stage.connect() as own:
            while not done.is_set():
                row = own.execute(
                    "SELECT coalesce(sum(n), 0), coalesce(max(n), 0) FROM (SELECT count(*) AS n FROM jobq.job "
                    "WHERE state = 'running' AND queue = 'b' GROUP BY group_key) AS one"
                ).fetchone()
                assert row is not None
                most_b, most_group, looks = max(most_b, int(row[0])), max(most_group, int(row[1])), looks + 1

    n, begun = 0, time.monotonic()
    with stage.beside(move, look) as done:
        while not done.is_set() and moved < given.moves and time.monotonic() - begun < 60 + given.moves / 20:
            missing = FIELD - stage.count("SELECT count(*) FROM jobq.job")
            jobs = []
            for _ in range(max(0, missing)):
                n += 1
                jobs.append(visit.options(queue="ab"[n % 2], group=f"g{n % GROUPS}").job(given.length))
            if jobs:
                q.enqueue_many(stage.connection, jobs)
            time.sleep(0.02)
    took = time.monotonic() - begun
    drained = came(lambda: stage.count("SELECT count(*) FROM jobq.job") == 0, 120, every=0.2)
    outcome = Outcome(
        figures={
            "moves": moved, "per_s": moved / took, "looks": looks, "most_running_in_b": most_b,
            "most_of_a_group_in_b": most_group, "jobs": stage.count("SELECT count(*) FROM jobq.job_history"),
            "left": stage.count("SELECT count(*) FROM jobq.job"),
        }
    )  # fmt: skip
    outcome.demand(moved >= given.moves, f"only {moved} of {given.moves} moves were made")
    outcome.demand(most_b <= 1, f"queue b has the limit 1, and {most_b} of its jobs ran at once")
    outcome.demand(drained, f"{outcome.figures['left']} jobs have not ended")
    outcome.demand(all(worker.poll() is None for worker in fleet), "a worker ended")
    return outcome
