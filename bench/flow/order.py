"""Order: every ordered group in its order, never two of it at once, whatever fails and whatever is killed."""

from __future__ import annotations

import random
from collections import defaultdict
from itertools import pairwise

from bench.flow.app import act, q
from bench.flow.stage import TIMES, Stage, until

WORKER = ("--processes", "1", "--concurrency", "8", *TIMES)


def order(stage: Stage, seed: int, *, groups: int = 200, each: int = 50, workers: int = 8) -> dict[str, float]:
    """Run `groups` of `each` jobs under kills, and count what broke the promise."""
    chooser = random.Random(seed)
    stage.rule("flow", group_mode="ordered")
    for _ in range(workers):
        stage.start(*WORKER)
    stage.ready(workers)
    for n in range(each):
        # In one transaction a round, as applications would: the groups in another order each time.
        names = [f"g{number}" for number in range(groups)]
        chooser.shuffle(names)
        q.enqueue_many(stage.connection, [act.options(group=g).job(g, n, 0.005, 0.05) for g in names])
    kills = 0
    while stage.one("SELECT count(*) FROM jobq.job") > 0:
        until(lambda: stage.one("SELECT count(*) FROM jobq.job") == 0 or wait(chooser), "the next kill")
        if kills < 15 and stage.one("SELECT count(*) FROM jobq.job") > 0:
            stage.kill(chooser, *WORKER)
            kills += 1
    executions = stage.executions()
    by_group = defaultdict(list)
    for one in executions:
        by_group[one.group].append(one)
    disorder = overlaps = 0
    for runs in by_group.values():
        for before, after in pairwise(runs):
            overlaps += after.start < before.end
            # The same job again unless it had succeeded and said so; then, or if the word was lost, the next one.
            disorder += after.n not in (before.n, before.n + 1)
            disorder += after.n == before.n + 1 and before.ended and not before.succeeded
        disorder += runs[-1].n != each - 1 or runs[0].n != 0
    return {
        "jobs": groups * each, "groups": len(by_group), "executions": len(executions), "kills": kills,
        "out_of_order": disorder, "two_at_once": overlaps,
        "succeeded": stage.one("SELECT count(*) FROM jobq.job_history WHERE state = 'succeeded'"),
    }  # fmt: skip


def wait(chooser: random.Random, longest: float = 1.0) -> bool:
    """Let some time pass."""
    import time

    time.sleep(chooser.uniform(longest / 2, longest))
    return True
