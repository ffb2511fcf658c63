"""50,000 cancellations that cross with retries, snoozes and releases: no job may stay `running` unless a worker runs it.

Two real workers run jobs that fail or snooze at once, again and again; operators cancel them as fast as they can.
"""

from __future__ import annotations

import argparse
import threading
import time

from bench.reliability.app import failing, q, snoozing
from bench.reliability.stage import Outcome, Stage
from jobq import operations

FIELD = 400  # jobs at a time


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--cancels", type=int, default=50_000, help="how many (default: 50000)")
    parser.add_argument("--patience", type=float, default=60.0, help="seconds for the last to end (default: 60)")


def run(stage: Stage, given: argparse.Namespace) -> Outcome:
    fleet = stage.fleet(2, "--processes", "1", "--concurrency", "16")
    total = 0
    counting = threading.Lock()

    def cancel(done: threading.Event) -> None:
        nonlocal total
        with stage.connect() as own:
            while total < given.cancels and not done.is_set():
                rows = own.execute(
                    "SELECT id FROM jobq.job WHERE state = 'running' AND cancel_requested_at IS NULL "
                    "ORDER BY random() LIMIT 4"
                )
                changed = operations.cancel(own, "jobq", [row[0] for row in rows], actor="bench")
                with counting:
                    total += len(changed.done)

    begun = time.monotonic()
    with stage.beside(cancel, cancel) as done:
        while not done.is_set() and total < given.cancels and time.monotonic() - begun < 60 + given.cancels / 50:
            missing = FIELD - stage.count("SELECT count(*) FROM jobq.job")
            if missing > 0:
                jobs = [(failing, snoozing)[n % 2].job() for n in range(missing)]
                q.enqueue_many(stage.connection, jobs)
            time.sleep(0.02)
    took = time.monotonic() - begun
    end = time.monotonic() + given.patience
    while stage.count("SELECT count(*) FROM jobq.job") and time.monotonic() < end:
        # A job that changes hands in that moment is refused, and the operator asks again.
        asked = stage.connection.execute("SELECT id FROM jobq.job WHERE cancel_requested_at IS NULL").fetchall()
        operations.cancel(stage.connection, "jobq", [row[0] for row in asked], actor="bench")
        time.sleep(0.2)
    stuck = stage.count("SELECT count(*) FROM jobq.job WHERE state = 'running' AND cancel_requested_at IS NOT NULL")
    outcome = Outcome(
        figures={
            "cancels": total, "per_s": total / took, "stuck": stuck,
            "live": stage.count("SELECT count(*) FROM jobq.job"),
            "states": dict(stage.connection.execute("SELECT state, count(*) FROM jobq.job_history GROUP BY 1").fetchall()),
            "workers_say_running": stage.one("SELECT coalesce(sum(running), 0) FROM jobq.worker"),
        }
    )  # fmt: skip
    outcome.demand(total >= given.cancels, f"only {total} of {given.cancels} cancellations were made")
    outcome.demand(
        not outcome.figures["live"], f"{stuck} jobs are stuck in `running`, {outcome.figures['live']} have not ended"
    )
    outcome.demand(all(worker.poll() is None for worker in fleet), "a worker ended")
    return outcome
