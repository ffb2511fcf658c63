"""Days of finished work in bulk: partitions for the past, thousands of rows, rollups for the charts."""

from __future__ import annotations

import math
import random
from functools import cache
from typing import Any

import psycopg

from jobq._core.histograms import BUCKETS

Conn = psycopg.Connection[Any]

_PARENTS = (
    "job_history_succeeded",
    "job_history_failed",
    "job_history_cancelled",
    "job_history_expired",
    "job_attempt",
)

_FINISHED = """
INSERT INTO jobq.job_history (id, claims, attempt, max_attempts, priority, crashes, queue, task, state, run_at, created_at,
                              started_at, finished_at, args, headers, error)
SELECT nextval('jobq.job_id_seq'), 1, 1, 10, 5, 0, (%(queues)s::text[])[1 + n %% cardinality(%(queues)s::text[])],
       (%(tasks)s::text[])[1 + n %% cardinality(%(tasks)s::text[])], %(state)s,
       ended - (2 + n %% 9) * interval '1 second', ended - (2 + n %% 9) * interval '1 second',
       ended - interval '0.7 s', ended, jsonb_build_object('n', n), '{}',
       replace((%(errors)s::text[])[1 + n %% greatest(cardinality(%(errors)s::text[]), 1)], '{n}', n::text)
FROM generate_series(1, %(number)s) AS n,
     LATERAL (SELECT clock_timestamp() - (%(from)s - (%(from)s - %(to)s) * n / %(number)s) * interval '1 second' AS ended) AS t
"""


def days(conn: Conn, number: int) -> None:
    """Make the partitions of the last `number` days, as workers would have that ran then."""
    for back in range(2, number + 1):
        for parent in _PARENTS:
            row = conn.execute(
                "SELECT to_char(day, 'YYYYMMDD'), day::timestamp AT TIME ZONE 'UTC', (day + 1)::timestamp AT TIME ZONE 'UTC'"
                " FROM (SELECT (now() AT TIME ZONE 'UTC')::date - %s AS day) AS t", (back,)
            ).fetchone()  # fmt: skip
            assert row is not None
            conn.execute(
                f"CREATE TABLE IF NOT EXISTS jobq.{parent}_{row[0]} PARTITION OF jobq.{parent}"
                f" FOR VALUES FROM ('{row[1].isoformat()}') TO ('{row[2].isoformat()}')".encode()
            )


def finished(
    conn: Conn,
    state: str,
    number: int,
    *,
    queues: list[str],
    tasks: list[str],
    since: float,
    until: float = 0,
    errors: tuple[str, ...] = (),
) -> None:
    """Insert `number` finished jobs, evenly from `since` to `until` seconds ago; `{n}` in an error counts."""
    conn.execute(
        _FINISHED.encode(),
        {"state": state, "number": number, "queues": queues, "tasks": tasks, "from": since, "to": until,
         "errors": list(errors)},
    )  # fmt: skip


def rollups(conn: Conn, queues: dict[str, float], tasks: dict[str, float]) -> None:
    """Write what the charts of an hour, a day and a week read: waves of a day and two bad quarters of an hour.

    `queues`, `tasks`: so many jobs a minute.
    """
    chance = random.Random(5)
    for table, names in (("queue", queues), ("task", tasks)):
        rows: list[tuple[Any, ...]] = []
        for span, kept in ((60, 2 * 3600), (600, 26 * 3600), (3600, 8 * 86400)):
            for step in range(kept // span):
                found = [_row(chance, span, step, name, rate) for name, rate in names.items()]
                rows += found
                if table == "queue":
                    rows.append(_total(found))
        with conn.cursor() as cursor:
            cursor.execute("CREATE TEMP TABLE rolled (span int, step int, succeeded int, failed int, ready int, name text,"
                           " waits int[], runs int[])")  # fmt: skip
            with cursor.copy("COPY rolled FROM STDIN") as copy:
                for row in rows:
                    copy.write_row(row)
            depth = ("ready, oldest_ready_seconds, ", "ready, CASE WHEN ready > 0 THEN ready / 7.0 END, ")
            extra = depth if table == "queue" else ("", "")
            cursor.execute(
                f"INSERT INTO jobq.rollup_{table} (span, at, succeeded, failed, {extra[0]}{table}, waits, runs)"
                " SELECT span, to_timestamp((floor(extract(epoch FROM now()) / span) - step - 1) * span), succeeded, failed,"
                f" {extra[1]}name, waits, runs FROM rolled".encode()
            )
            cursor.execute("DROP TABLE rolled")


def _row(chance: random.Random, span: int, step: int, name: str, rate: float) -> tuple[Any, ...]:
    ago = (step + 1) * span
    wave = 1 + 0.6 * math.sin(ago / 86400 * 2 * math.pi) + chance.uniform(-0.15, 0.15)
    done = max(0, round(rate * wave * span / 60))
    bad = 1800 < ago < 2700 or 50000 < ago < 50900
    failed = done // 2 if bad else done // 60
    waits = _histogram(done, 9 if bad else 5)
    runs = _histogram(done, 6)
    return span, step, done - failed, failed, done // 3 if bad else chance.randrange(4), name, waits, runs


def _total(rows: list[tuple[Any, ...]]) -> tuple[Any, ...]:
    """All queues together, whose name is the empty one."""
    succeeded, failed, ready = (sum(row[place] for row in rows) for place in (2, 3, 4))
    waits, runs = ([sum(counts) for counts in zip(*(row[place] for row in rows), strict=True)] for place in (6, 7))
    return rows[0][0], rows[0][1], succeeded, failed, ready, "", waits, runs


def _histogram(number: int, middle: float) -> list[int]:
    """Spread `number` over the buckets, most of them near `middle`."""
    return [round(number * share) for share in _shape(middle)]


@cache
def _shape(middle: float) -> list[float]:
    weights = [math.exp(-((place - middle) ** 2) / 4) for place in range(BUCKETS)]
    return [weight / (sum(weights) or 1) for weight in weights]
