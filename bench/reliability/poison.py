"""A fleet of 3 workers: one poison of each kind a second beside 200 good jobs/s. The good ones must not notice.

Every good job runs once, p99 of their starts is at most 250 ms, and no worker ends. One of the workers logs to a pipe that
is not read. A good job that was being executed when a poison ended its runner runs again: `cut_short` counts those, and
`claimed_again` also those that had not begun. A small machine keeps up with fewer poisons, since most cost a runner:
`--every 10`.
"""

from __future__ import annotations

import argparse
import itertools
import os
import threading
import time
from collections import Counter
from typing import Any

import psycopg

from bench.figures import percentile
from bench.reliability import poisons
from bench.reliability.app import good, noop
from bench.reliability.stage import Outcome, Stage, came
from jobq import operations

START_MS = 250.0
TABLES = f"""
CREATE TABLE invoice (job_id bigint REFERENCES jobq.job (id));
CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE 'history does not want this row'; END $$;
CREATE TRIGGER refuse BEFORE INSERT ON jobq.job_history FOR EACH ROW
WHEN (new.task = '{poisons.unwanted.name}') EXECUTE FUNCTION refuse();
"""
SIMPLE = [
    poisons.sly_snooze, poisons.nul_text, poisons.wrong_progress, poisons.wrong_result, poisons.huge_result,
    poisons.noisy, poisons.unwanted, poisons.hanging, poisons.keeps_the_interpreter, poisons.ignores_cancelling,
    poisons.leaves_a_program, poisons.segfault, poisons.closes_descriptors, poisons.kills_its_group,
    poisons.ends_its_group, poisons.takes_memory, poisons.exit_in_a_child_task, poisons.stops_the_loop,
    poisons.odd_text, poisons.forks, poisons.plain_error,
]  # fmt: skip


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--seconds", type=float, default=600.0, help="how long (default: 600)")
    parser.add_argument("--rate", type=float, default=200.0, help="good jobs a second (default: 200)")
    parser.add_argument("--every", type=float, default=1.0, help="seconds between two of one kind (default: 1)")
    parser.add_argument("--kinds", help="some of the kinds, by commas (default: all)")
    parser.add_argument("--strict", action="store_true", help="a good job may not even be claimed twice")
    parser.add_argument("--preload", action="store_true", help="workers fork their runners")
    parser.add_argument("--concurrency", type=int, help="slots of a runner (default: the worker's own)")


def by_sql(connection: psycopg.Connection[Any], task: str, args: str = "{}", queue: str = "poison") -> int:
    """Enqueue as another language would: nothing is checked."""
    row = connection.execute("SELECT jobq.enqueue(%s, %s::jsonb, queue => %s)", (task, args, queue)).fetchone()
    assert row is not None
    return int(row[0])


def kinds() -> dict[str, Any]:
    """Return how each kind is put into the world, by name: a function of a connection and a number."""

    def foreign_key(own: psycopg.Connection[Any], n: int) -> None:
        with own.transaction():
            job = poisons.refused.enqueue(own).id
            own.execute("INSERT INTO invoice VALUES (%s)", (job,))

    def counters(own: psycopg.Connection[Any], n: int) -> None:
        column = ("attempt", "claims")[n % 2]
        with own.transaction():
            job = poisons.counted.enqueue(own).id
            own.execute(
                f"UPDATE jobq.job SET {column} = 2147483647, max_attempts = 2147483647 WHERE id = %s".encode(), (job,)
            )

    def locked(own: psycopg.Connection[Any], n: int) -> None:
        """A row that stays locked for a while, and the settings of a queue."""
        job = poisons.plain_error.options(delay=0.2).enqueue(own).id
        by_sql(own, noop.name, queue="limited")

        def hold() -> None:
            with psycopg.connect(own.info.dsn) as holder:
                holder.execute("SELECT FROM jobq.job WHERE id = %s FOR UPDATE", (job,))
                operations.configure(holder, "jobq", "limited", limit=2 + n % 2, actor="bench")
                time.sleep(0.8)

        threading.Thread(target=hold, daemon=True).start()

    found: dict[str, Any] = {each.name: lambda own, n, each=each: each.enqueue(own) for each in SIMPLE}
    return found | {
        "foreign_key": foreign_key,
        "counters": counters,
        "locked": locked,
        "unknown_task": lambda own, n: by_sql(own, f"nowhere.task{n % 5}"),
        "unknown_parameter": lambda own, n: by_sql(own, poisons.no_parameters.name, '{"surplus": 1}'),
        "new_queue": lambda own, n: by_sql(own, noop.name, queue=f"new-{n}"),
    }


def run(stage: Stage, given: argparse.Namespace) -> Outcome:
    chosen = kinds()
    if given.kinds:
        chosen = {name: chosen[name] for name in given.kinds.split(",")}
    stage.connection.execute(TABLES.encode())
    operations.configure(stage.connection, "jobq", "limited", limit=2, actor="bench")
    options = ["--max-rss-mb", "400", *(["--concurrency", str(given.concurrency)] if given.concurrency else [])]
    options += ["--preload"] if given.preload else []
    stage.start(*options)
    stage.start(*options)
    reader, writer = os.pipe()
    stage.start(*options, log=writer)
    os.close(writer)
    stage.ready(3)
    fleet = list(stage.workers)
    ended: dict[int, str] = {}
    enqueued: dict[int, float] = {}
    end = time.monotonic() + given.seconds

    def produce(done: threading.Event) -> None:
        begun = time.monotonic()
        with stage.connect() as own:
            for n in itertools.count():
                if time.monotonic() > end or done.is_set():
                    return
                time.sleep(max(0.0, begun + n / given.rate - time.monotonic()))
                job = good.enqueue(own, n).id
                enqueued[job] = time.monotonic()

    def harm(done: threading.Event) -> None:
        begun = time.monotonic()
        with stage.connect() as own:
            for n in itertools.count():
                for place, put in enumerate(chosen.values()):
                    pause = begun + (n + place / len(chosen)) * given.every - time.monotonic()
                    if time.monotonic() + pause > end or done.wait(max(0.0, pause)):
                        return
                    put(own, n)

    with stage.beside(produce, harm, stage.heartbeat_ages()) as done:
        while not done.is_set() and time.monotonic() < end:
            time.sleep(0.2)
            for number, worker in enumerate(fleet):
                if worker.poll() is not None:
                    ended.setdefault(
                        number, f"after {given.seconds - (end - time.monotonic()):.0f} s, status {worker.returncode}"
                    )
        left = "SELECT count(*) FROM jobq.job WHERE queue = 'good'"
        drained = came(lambda: stage.count(left) == 0, 30)
    outcome = judge(stage, enqueued, ended, drained, strict=given.strict)
    outcome.figures["exit_statuses"] = stage.stop()
    os.close(reader)
    return outcome


def judge(stage: Stage, enqueued: dict[int, float], ended: dict[int, str], drained: bool, *, strict: bool) -> Outcome:
    starts = stage.starts("good")
    waited = [(starts[job][0] - at) * 1000 for job, at in enqueued.items() if job in starts]
    states = "SELECT state, count(*) FROM jobq.job_history WHERE queue = 'good' GROUP BY 1"
    ends = Counter(dict(stage.connection.execute(states.encode()).fetchall()))
    again = stage.count("SELECT count(*) FROM jobq.job_history WHERE queue = 'good' AND claims > 1")
    by_state = "SELECT task || ' ' || state, count(*) FROM {} WHERE queue = 'poison' GROUP BY 1 ORDER BY 1"
    twice = sum(len(times) > 1 for times in starts.values())
    outcome = Outcome(
        figures={
            "good_jobs": len(enqueued), "good_succeeded": ends["succeeded"], "cut_short": twice,
            "claimed_again": again, "oldest_heartbeat_s": stage.oldest_heartbeat,
            "start_p50_ms": percentile(waited, 50) if waited else None,
            "start_p99_ms": percentile(waited, 99) if waited else None,
            "start_max_ms": max(waited, default=None),
            "poison_live": dict(stage.connection.execute(by_state.format("jobq.job").encode()).fetchall()),
            "poison_ended": dict(stage.connection.execute(by_state.format("jobq.job_history").encode()).fetchall()),
        }
    )  # fmt: skip
    outcome.demand(drained and ends == {"succeeded": len(enqueued)}, f"of {len(enqueued)} good jobs: {dict(ends)}")
    # Claimed ahead by a runner that a poison ended, a job is claimed again, and runs once nevertheless.
    outcome.demand(not (strict and again), f"{again} good jobs were claimed more than once")
    outcome.demand(not twice, f"{twice} good jobs were started more than once")
    outcome.demand(
        bool(waited) and percentile(waited, 99) <= START_MS,
        f"p99 of the starts: {percentile(waited, 99) if waited else float('nan'):.0f} ms, at most {START_MS:g} are promised",
    )
    for number, how in ended.items():
        outcome.broken.append(f"worker {number} ended {how}")
    return outcome
