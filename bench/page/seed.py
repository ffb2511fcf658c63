"""Millions of jobs, written straight into the tables: eight days of history, a large backlog, and rollups for the charts."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Callable
from typing import Any
from uuid import UUID

import psycopg

from bench.page.app import QUEUES, TASKS
from jobq import JobQ, operations
from jobq._core import histograms
from jobq._worker.maintenance.rollup import rollup
from jobq.filters import JobFilter

HISTORY, LIVE, DAYS, RUNNING, RUNS = 5_000_000, 1_000_000, 8, 24, 5_000
WORKERS = [UUID(int=n + 1) for n in range(4)]
_PARENTS = (
    "job_history_succeeded", "job_history_failed", "job_history_cancelled", "job_history_expired", "job_attempt",
)  # fmt: skip
_CHUNK = 500_000
# {n}, {ms}, {id} and {path} are what makes each of them another text, and a group of all of a kind.
_ERRORS = [
    "BankUnavailable: bank answered 502 after {ms} ms",
    "ConnectionRefusedError: [Errno 111] Connection refused: ('10.0.{n}.17', 5432)",
    "TimeoutError: no answer from https://api.example.com/v2/orders/{n} within {ms} ms",
    "KeyError: 'customer_{n}'",
    "ValueError: invalid literal for int() with base 10: '{id}'",
    "FileNotFoundError: [Errno 2] No such file or directory: '/srv/shop/exports/{path}.csv'",
    'IntegrityError: duplicate key value violates unique constraint "invoice_pkey" (id)=({n})',
    "SMTPRecipientsRefused: 550 5.1.1 <user{n}@example.com>: user unknown",
    "MemoryError: cannot allocate {n} bytes for a picture of {ms} x {ms}",
    "PermissionDenied: token {id} may not write to bucket exports",
    "UnicodeDecodeError: 'utf-8' codec can't decode byte 0xe4 in position {ms}",
    "AssertionError: stock of article {n} is negative",
]
_TRACEBACK = "Traceback (most recent call last):\n" + "".join(
    f'  File "/srv/shop/{name}.py", line {40 + 7 * n}, in {name}\n    return {name}(order_id, customer)\n'
    for n, name in enumerate(
        ("handle", "capture", "post", "request", "urlopen", "send", "connect", "create_connection")
    )
)

# `n` runs with time. A power of a random number: few names have most of the jobs.
_COMMON = """
    (%(queues)s::text[])[1 + floor(cardinality(%(queues)s::text[]) * power(r.queue, 3))::int] AS queue,
    (%(tasks)s::text[])[1 + floor(cardinality(%(tasks)s::text[]) * power(r.task, 2))::int] AS task,
    jsonb_build_object(
        'order_id', n %% 200000, 'customer', 'c-' || n %% 50000, 'amount', round((r.long * 500)::numeric, 2),
        'note', CASE WHEN r.long < 0.005 THEN repeat(md5(n::text), 120) ELSE left(md5(n::text), 12) END) AS args,
    CASE WHEN r.long < 0.3 THEN jsonb_build_object('trace', md5(n::text)) ELSE '{}' END AS headers"""
_RANDOM = """
    (SELECT random() AS state, random() AS queue, random() AS task, random() AS long, random() AS wait, random() AS run
     WHERE n IS NOT NULL) AS r"""

_HISTORY = f"""
INSERT INTO jobq.job_history (id, claims, attempt, max_attempts, priority, crashes, queue, task, state, run_at, created_at,
                              started_at, finished_at, worker_id, error, args, headers, result)
SELECT n, tries, tries, 10, 5, 0, queue, task, state, started_at - wait, started_at - wait, started_at, finished_at, worker,
       CASE WHEN state = 'failed' THEN replace(replace(replace(replace(
           (%(errors)s::text[])[1 + (hashtext(task) & 1023 + n %% 3)::int %% cardinality(%(errors)s::text[])],
           '{{n}}', n::text), '{{ms}}', (n %% 3000)::text), '{{id}}', md5(n::text)), '{{path}}', left(md5(n::text), 8)) END,
       args, headers, CASE WHEN state = 'succeeded' THEN jsonb_build_object('ok', true, 'id', n) END
FROM (
    SELECT n, finished_at, finished_at - run AS started_at, wait, worker, queue, task, args, headers, state,
           CASE WHEN state = 'failed' THEN 2 ELSE 1 + (n %% 100 = 0)::int END AS tries
    FROM (
        SELECT n, {_COMMON},
               now() - %(days)s * interval '1 day' * (1 - n / %(total)s::double precision) AS finished_at,
               -ln(1 - r.run) * 0.6 * interval '1 s' AS run, -ln(1 - r.wait) * 1.5 * interval '1 s' AS wait,
               (%(workers)s::uuid[])[1 + n %% cardinality(%(workers)s::uuid[])] AS worker,
               CASE WHEN r.state < 0.97 THEN 'succeeded' WHEN r.state < 0.99 THEN 'failed'
                    WHEN r.state < 0.996 THEN 'cancelled' ELSE 'expired' END AS state
        FROM generate_series(%(first)s::bigint, %(last)s::bigint) AS n CROSS JOIN LATERAL {_RANDOM}
    ) AS told
) AS made
"""

_ATTEMPTS = """
INSERT INTO jobq.job_attempt (job_id, claims, attempt, outcome, worker_id, started_at, finished_at, retry_at, error_type,
                              message, traceback)
SELECT id, n, n, CASE WHEN n < claims OR state = 'succeeded' THEN 'error' ELSE 'failed' END, worker_id,
       started_at - (claims - n) * interval '9 s', finished_at - (claims - n) * interval '9 s',
       CASE WHEN n < claims THEN started_at END, split_part(error, ':', 1), error, %(traceback)s || error
FROM (SELECT id, claims, state, worker_id, started_at, finished_at,
             coalesce(error, 'TimeoutError: no answer within ' || id %% 3000 || ' ms') AS error
      FROM jobq.job_history WHERE state IN ('failed', 'succeeded') AND (claims > 1)) AS job
CROSS JOIN LATERAL generate_series(1, CASE WHEN state = 'failed' THEN 2 ELSE 1 END) AS n
"""

_LIVE = f"""
INSERT INTO jobq.job (id, priority, queue, task, state, run_at, created_at, args, headers)
SELECT n, CASE n %% 10 WHEN 0 THEN 3 WHEN 1 THEN 7 ELSE 5 END, queue, task, 'ready',
       CASE WHEN r.state < %(later)s THEN now() + r.wait * interval '2 days'
            ELSE now() - (1 - (n - %(first)s) / %(number)s::double precision) * interval '1 hour' END,
       now() - interval '1 hour', args, headers
FROM (SELECT n, r.state, r.wait, {_COMMON}
      FROM generate_series(%(first)s::bigint, %(first)s::bigint + %(number)s - 1) AS n CROSS JOIN LATERAL {_RANDOM}) AS r
"""

# The histogram of a span's waits or runs, about so many of them: a hump that falls off to both sides.
_HUMP = """
    ARRAY(SELECT floor(number * exp(-power(b - {peak}, 2) / 8.0) / 5)::int FROM generate_series(1, {buckets}) AS b)"""
_ROLLUP = """
INSERT INTO jobq.rollup_{of} (span, at, {of}, succeeded, failed, cancelled, expired, {depth} waits, runs)
SELECT %(span)s, at, name, number, number / 50, number / 160, number / 250, {depths} {waits}, {runs}
FROM generate_series(
         to_timestamp(floor(extract(epoch FROM now() - %(keep)s * interval '1 s') / %(span)s) * %(span)s),
         now() - %(span)s * interval '1 s', %(span)s * interval '1 s') AS at
CROSS JOIN (SELECT * FROM unnest(%(names)s::text[]) WITH ORDINALITY AS named (name, place)) AS named
CROSS JOIN LATERAL (
    SELECT (%(rate)s * %(span)s * CASE WHEN name = '' THEN 1 ELSE 1.6 / (place + 1) / ln(%(count)s) END
            * (1 + 0.5 * sin(extract(epoch FROM at) / 13751)))::int AS number) AS sized
"""


def days(connection: psycopg.Connection[Any], number: int) -> None:
    """Make the partitions of the last `number` days, as workers would have that ran then."""
    for back in range(2, number + 1):
        for parent in _PARENTS:
            row = connection.execute(
                "SELECT to_char(day, 'YYYYMMDD'), day::timestamp AT TIME ZONE 'UTC', (day + 1)::timestamp AT TIME ZONE 'UTC'"
                " FROM (SELECT (now() AT TIME ZONE 'UTC')::date - %s AS day) AS t",
                (back,),
            ).fetchone()
            assert row is not None
            connection.execute(
                f"CREATE TABLE jobq.{parent}_{row[0]} PARTITION OF jobq.{parent}"
                f" FOR VALUES FROM ('{row[1].isoformat()}') TO ('{row[2].isoformat()}')".encode()
            )


def _workflows(connection: psycopg.Connection[Any], runs: int) -> None:
    """Insert runs of ten nodes, and one of 500, whose first nodes wait for tomorrow."""
    q = JobQ()

    @q.task(queue=QUEUES[0])
    def step(number: int) -> int:
        return number

    for nodes, count in ((10, runs), (500, 1)):
        with q.workflow(f"of {nodes} nodes") as wf:
            former = step.options(delay=86400).node(0)
            for _ in range(nodes - 1):
                former = step.node(former.result)
        with connection.transaction():
            for _ in range(count):
                wf.enqueue(connection)


def fill(connection: psycopg.Connection[Any], scale: float, say: Callable[[str], None]) -> None:
    """Fill the migrated, empty database of `connection`, which commits each statement by itself."""
    history, live = round(HISTORY * scale), round(LIVE * scale)
    begun = time.monotonic()

    def told(what: str) -> None:
        say(f"seeding: {what} ({time.monotonic() - begun:.0f} s)")

    # Of a database that is made for this: what a crash would lose is made again.
    connection.execute("SET synchronous_commit = off")
    connection.execute("SELECT setseed(0.5)")
    days(connection, DAYS + 1)
    names = {"queues": QUEUES, "tasks": TASKS}
    for first in range(1, history + 1, _CHUNK):
        last = min(first + _CHUNK - 1, history)
        connection.execute(
            _HISTORY.encode(),
            {
                **names, "errors": _ERRORS, "workers": WORKERS, "days": DAYS, "total": history, "first": first,
                "last": last,
            },
        )  # fmt: skip
        told(f"{last:,} jobs of history")
    connection.execute(_ATTEMPTS.encode(), {"traceback": _TRACEBACK})
    told("attempts")
    refill(connection, live, first=history + 1, later=0.15)
    told(f"{live:,} live jobs")
    _workers(connection)
    _rollups(connection, history / (DAYS * 86400))
    told("rollups")
    connection.execute(
        "INSERT INTO jobq.queue (name, paused_at, paused_by, pause_reason) VALUES (%s, now(), 'ann', 'bank is away')",
        (QUEUES[-1],),
    )
    _workflows(connection, max(round(RUNS * scale), 3))
    told("runs of workflows")
    # Named like the queues, so that one list of names does for the pages of both.
    connection.execute(
        "INSERT INTO jobq.schedule (name, task, queue, every, next_at) "
        "SELECT queue, %s, queue, interval '1 hour', now() + interval '30 minutes' FROM unnest(%s::text[]) AS queue",
        (TASKS[0], QUEUES),
    )
    connection.execute(
        "INSERT INTO jobq.schedule_tick (schedule, tick, job_id) "
        "SELECT queue, date_trunc('hour', now()) - n * interval '1 hour', n "
        "FROM unnest(%s::text[]) AS queue, generate_series(1, 168) AS n",
        (QUEUES,),
    )
    for text in ("state:failed task:payment.*", "state:failed error:bank"):
        for _ in range(3):
            operations.draft(connection, "jobq", action="retry", filter=JobFilter.parse(text), actor="bench")
    for n in range(300):
        operations.cancel(connection, "jobq", [history + live - n], actor=f"operator-{n % 7}", reason="bench")
    connection.execute("RESET synchronous_commit")
    connection.execute("VACUUM ANALYZE")
    told("vacuumed")


def refill(connection: psycopg.Connection[Any], number: int, *, first: int | None = None, later: float = 0.0) -> None:
    """Add `number` ready jobs, a share of `later` of them for later, with the next ids (or from `first` on)."""
    if first is None:
        row = connection.execute("SELECT last_value + 1 FROM jobq.job_id_seq").fetchone()
        assert row is not None
        first = int(row[0])
    parameters = {"queues": QUEUES, "tasks": TASKS, "first": first, "number": number, "later": later}
    connection.execute(_LIVE.encode(), parameters)
    connection.execute("SELECT setval('jobq.job_id_seq', %s)", (first + number - 1,))


def _workers(connection: psycopg.Connection[Any]) -> None:
    for n, worker in enumerate(WORKERS):
        connection.execute(
            "INSERT INTO jobq.worker (id, lock_key, pid, slots, running, state, host, version, app, tasks, rss)"
            " VALUES (%s, 1, %s, 32, %s, 'running', %s, '0.1.0', 'bench.page.app:q', %s, %s)",
            (worker, 4000 + n, RUNNING // len(WORKERS), f"host-{n}", TASKS, (300 + n) * 2**20),
        )
    connection.execute(
        "UPDATE jobq.job SET state = 'running', attempt = 1, claims = 1, started_at = now(),"
        " worker_id = (%s::uuid[])[1 + id %% 4] WHERE id IN"
        " (SELECT id FROM jobq.job WHERE state = 'ready' AND run_at <= now() ORDER BY id LIMIT %s)",
        (WORKERS, RUNNING),
    )


def beat(connection: psycopg.Connection[Any]) -> None:
    """Let the workers that are only rows be alive at this moment."""
    connection.execute("UPDATE jobq.worker SET heartbeat_at = clock_timestamp() WHERE id = ANY (%s)", (WORKERS,))


def _rollups(connection: psycopg.Connection[Any], rate: float) -> None:
    shape = {
        "waits": _HUMP.format(peak=11, buckets=histograms.BUCKETS),
        "runs": _HUMP.format(peak=9, buckets=histograms.BUCKETS),
    }
    for of, names in (("queue", ["", *QUEUES]), ("task", TASKS)):
        depth = {"depth": "ready, oldest_ready_seconds,", "depths": "number / 3, 1.5,"} if of == "queue" else {}
        query = _ROLLUP.format(of=of, **(depth or {"depth": "", "depths": ""}), **shape)
        for span, keep in ((60, 26 * 3600), (600, 7 * 86400), (3600, 7 * 86400)):
            connection.execute(
                query.encode(),
                {"span": span, "keep": keep, "names": names, "rate": rate, "count": math.e * len(names)},
            )
    # What the last hours had is counted, as the maintenance task counts it; from there it goes on.
    asyncio.run(_count(connection.info.dsn))


async def _count(dsn: str) -> None:
    async with await psycopg.AsyncConnection.connect(dsn) as connection:
        await rollup(connection, "jobq")
