"""Under a pinned xmin horizon: what claims of limited queues cost as dead entries gather. One connection, no worker."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from typing import Any
from uuid import uuid4

import psycopg

from bench.flow.app import noop, q
from bench.flow.stage import Stage
from jobq._postgres.sql import statement
from jobq._worker.ipc.messages import Success
from jobq._worker.lanes.cursor import NOWHERE
from jobq._worker.limited.queues import LimitedQueues
from jobq._worker.statements.parameters import advance_parameters

# Kinds of limited queues: the rule, how many groups (0: none), how many jobs a claim may take.
KINDS: dict[str, tuple[dict[str, Any], int, int]] = {
    "fair": ({"group_mode": "fair", "group_limit": 2, "max_running": 200}, 20_000, 100),
    "tenants": ({"group_mode": "fair"}, 50, 100),
    "ordered": ({"group_mode": "ordered"}, 1_000, 100),
    "limit": ({"max_running": 200}, 0, 100),
    "rate": ({"rate_jobs": 1_000_000, "rate_seconds": 1.0, "rate_burst": 1_000_000}, 0, 100),
    "single": ({"group_mode": "ordered"}, 1, 100),
}
PLANNER = (
    "-c enable_seqscan=off -c enable_hashjoin=off -c enable_mergejoin=off -c jit=off "
    "-c plan_cache_mode=force_generic_plan"
)


def pinned(
    stage: Stage, seed: int, *, kind: str = "fair", jobs: int = 100_000, hold: bool = True, late: int = 20
) -> dict[str, float]:
    """Claim and acknowledge `jobs` under a held snapshot; the backend's CPU time for a job, by fifths.

    `late`: how many jobs run beside, and end a claim later than the others.
    """
    rule, groups, want = KINDS[kind]
    stage.rule("flow", **rule)
    some = (noop.options(group=f"g{n % groups}") if groups else noop for n in range(jobs))
    q.enqueue_many(stage.connection, [one.job(n) for n, one in enumerate(some)])
    stage.connection.execute("ANALYZE")
    limited = LimitedQueues("jobq", 60.0)
    limited.refresh(["flow"])
    worker = uuid4()
    with psycopg.connect(stage.url) as holder, psycopg.connect(
        stage.url, autocommit=True, options=PLANNER, prepare_threshold=0
    ) as own:  # fmt: skip
        if hold:
            holder.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
            holder.execute("SELECT count(*) FROM pg_class")
        done, cpu, marks = 0, 0.0, [0.0]
        running: list[Success] = []
        while done < jobs:
            before = _cpu(own)
            parameters = limited.begin(worker, "flow", want)
            claim = statement("claim_limited", "jobq")
            rows = psycopg.RawCursor(own).execute(claim.raw, claim.values(parameters)).fetchall()
            claimed = [Success(row[0], row[1], row[11], b"null", 0.001) for row in limited.took(parameters, rows).rows]
            running += claimed
            ending, running = (running[:-late], running[-late:]) if claimed and groups != 1 else (running, [])
            ack = statement("ack_and_claim", "jobq")
            values = ack.values(advance_parameters(worker, ending, NOWHERE, 0))
            psycopg.RawCursor(own).execute(ack.raw, values).fetchall()
            limited.ended(ending)
            cpu += _cpu(own) - before
            done += len(ending)
            while done >= len(marks) * jobs / 5:
                marks.append(cpu)
    fifths = [(after - before) / (jobs / 5) * 1e6 for before, after in pairwise(marks)]
    return {
        "jobs": jobs, **{f"us_a_job_{n}": round(each, 1) for n, each in enumerate(fifths, 1)},
        "last_to_first": fifths[0] / fifths[-1],
    }  # fmt: skip


def _cpu(connection: psycopg.Connection[Any]) -> float:
    """Return the CPU seconds that the connection's backend has used."""
    return int(Path(f"/proc/{connection.info.backend_pid}/schedstat").read_text().split()[0]) / 1e9
