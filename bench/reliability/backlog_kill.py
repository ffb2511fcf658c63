"""kill -9 of a worker while there is a backlog of 10 minutes: its jobs run again within 5 s, before what waited behind them.

"First in line": until the last of the dead worker's jobs has started again, the worker that is left starts no more others
than it had claimed already and can have at a time.
"""

from __future__ import annotations

import argparse
import time

from bench.cpu import family
from bench.reliability.app import q, short
from bench.reliability.stage import Outcome, Stage, came, until

AGAIN_S = 5.0
SLOTS = 4
OPTIONS = ("--processes", "1", "--concurrency", str(SLOTS))


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--backlog", type=float, default=600.0, help="seconds of work for what is left (default: 600)")
    parser.add_argument("--length", type=float, default=0.2, help="seconds of a job (default: 0.2)")
    parser.add_argument("--runs", type=int, default=3, help="how often (default: 3)")


def once(stage: Stage, given: argparse.Namespace, outcome: Outcome) -> float:
    """Kill once; return after how many seconds the last of its jobs had started again."""
    stage.begin()
    victim, _ = stage.fleet(2, *OPTIONS)
    number = int(given.backlog / given.length * SLOTS)
    for begin in range(0, number, 10_000):
        jobs = [short.job(given.length)] * min(10_000, number - begin)
        q.enqueue_many(stage.connection, jobs)
    until(lambda: len(stage.starts("end")) > 8 * SLOTS, "the first jobs")
    dead = stage.one("SELECT id FROM jobq.worker WHERE pid = %s", victim.pid)
    # A start in the dying runner is not one after its rescue.
    dying = family(victim.pid)
    victim.kill()
    killed = time.monotonic()
    victim.wait()
    # What was recorded of it when it died: only these are the dead worker's.
    held = [row[0] for row in stage.connection.execute("SELECT id FROM jobq.job WHERE worker_id = %s", (dead,))]
    started = stage.starts()
    begun = {job for job in held if job in started}

    def again() -> dict[int, float]:
        lines = stage.lines("start")
        return {each.job: each.at for each in lines if each.job in held and each.at > killed and each.pid not in dying}

    back = came(lambda: len(again()) == len(held), 60, every=0.05)
    last = max(again().values(), default=float("inf")) if back else float("inf")
    rescued = min(again().values(), default=float("inf"))
    overtook = sum(rescued < line.at < last and line.job not in held for line in stage.lines("start"))
    outcome.figures |= {"jobs": number, "held": len(held), "of_these_begun": len(begun)}
    outcome.figures["overtaken_by"] = max(outcome.figures.get("overtaken_by", 0), overtook)
    outcome.demand(
        last - killed <= AGAIN_S, f"the last job of the dead worker ran again {last - killed:.1f} s after its death"
    )
    outcome.demand(overtook <= 4 * SLOTS, f"{overtook} jobs of the backlog were started before the last rescued one")
    return last - killed


def run(stage: Stage, given: argparse.Namespace) -> Outcome:
    outcome = Outcome()
    times = [once(stage, given, outcome) for _ in range(given.runs)]
    outcome.figures |= {"runs": given.runs, "again_max_s": max(times), "again_s": [round(each, 2) for each in times]}
    # The rest of the backlog is of no interest.
    stage.connection.execute("DELETE FROM jobq.job WHERE state <> 'running'")
    return outcome
