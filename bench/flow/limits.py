"""Limits: never exceeded, and used while work waits."""

from __future__ import annotations

import random
import threading
import time
from collections import defaultdict

import psycopg

from bench.flow.app import act, q
from bench.flow.stage import TIMES, Stage, most_at_once, until

WORKER = ("--processes", "1", "--concurrency", "8", *TIMES)
LIMIT = 20


def limits(stage: Stage, seed: int, *, groups: int = 1000, jobs: int = 4000, kills: int = 5) -> dict[str, float]:
    """Run jobs of groups with limits of 1 to 5, in a queue with a limit, under kills."""
    chooser = random.Random(seed)
    stage.rule("flow", max_running=LIMIT, group_mode="limited", group_limit=1)
    stage.connection.execute(
        "INSERT INTO jobq.rate_state (queue, group_key, max_running) SELECT 'flow', 'g' || n, 1 + n %% 5 "
        "FROM generate_series(0, %s) AS n",
        (groups - 1,),
    )
    for _ in range(8):
        stage.start(*WORKER)
    stage.ready(8)
    # A few busy groups, many quiet ones.
    names = [f"g{int(groups * chooser.random() ** 3)}" for _ in range(jobs)]
    q.enqueue_many(
        stage.connection,
        [act.options(group=g).job(g, n, chooser.uniform(0.05, 0.15), 0.02) for n, g in enumerate(names)],
    )
    begun = time.monotonic()
    used: list[int] = []
    most: list[int] = []
    done = threading.Event()

    def sample() -> None:
        """Look at the permits that are in use, as long as others than they could be."""
        with psycopg.connect(stage.url, autocommit=True) as own:
            # What could run were it not for the queue's limit: of each group, as many as its own still admits.
            query = """
                SELECT coalesce(sum(running), 0), coalesce(sum(least(due, max_running - running)), 0)
                FROM (SELECT group_key, count(*) FILTER (WHERE state = 'running') AS running,
                             count(*) FILTER (WHERE state = 'waiting' AND run_at <= now()) AS due
                      FROM jobq.job GROUP BY group_key) AS one
                JOIN jobq.rate_state USING (group_key)"""
            while not done.wait(0.02):
                running, possible = own.execute(query).fetchone() or (0, 0)
                most.append(int(running))
                if possible > LIMIT:
                    used.append(int(running))

    sampler = threading.Thread(target=sample)
    until(stage.executions, "the first start")
    time.sleep(0.5)
    sampler.start()
    for _ in range(kills):
        time.sleep(chooser.uniform(1, 2))
        stage.kill(chooser, *WORKER)
    until(lambda: stage.one("SELECT count(*) FROM jobq.job") == 0, "the end")
    done.set()
    sampler.join()
    executions = stage.executions()
    by_group = defaultdict(list)
    for one in executions:
        by_group[one.group].append(one)
    over = sum(most_at_once(runs) > 1 + int(group[1:]) % 5 for group, runs in by_group.items())
    return {
        "jobs": jobs, "kills": kills, "groups_over_their_limit": over, "most_at_once": most_at_once(executions),
        "most_running_rows": max(most), "used_percent": 100 * sum(used) / (LIMIT * len(used)) if used else 0.0,
        "seconds": executions[-1].end - begun,
    }  # fmt: skip
