"""The lists of the status page at size: `python -m bench.page.lists`. 30,000 dead letters of distinct faults, 1,500 queues, 500
tasks, 1,500 schedules and 200 workers; each list with nothing kept of the last answer, by its default, sorted, filtered, and at
its last page. Prints the milliseconds and the bytes beside what is promised; ends with 1 where a list takes more.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path
from typing import Any

import psycopg
from rich.console import Console
from rich.table import Table

from bench.figures import percentile
from bench.servers import Server, machine
from jobq import migrate
from jobq.web import create_app
from jobq.web.server import close

FAILURES, QUEUES, TASKS, SCHEDULES, WORKERS = 30_000, 1_500, 500, 1_500, 200
MOST_MS, MOST_BYTES = 150.0, 300_000

_SEED = (
    # Some of them waiting, some for later, three priorities.
    """INSERT INTO jobq.job (task, queue, priority, run_at, args)
       SELECT 'task' || n %% %(tasks)s, 'tenant-' || lpad((n %% %(queues)s)::text, 4, '0'), 4 + n %% 3,
              now() + (n %% 7 - 5) * interval '1 hour', jsonb_build_object('n', n)
       FROM generate_series(1, %(queues)s * 20) AS n""",
    # Letters only: digits would make them one fault.
    """INSERT INTO jobq.job_history (id, claims, attempt, max_attempts, priority, crashes, queue, task, state, run_at,
                                     created_at, started_at, finished_at, error, args, headers)
       SELECT nextval('jobq.job_id_seq'), 1, 5, 5, 5, 0, 'tenant-' || lpad((n %% %(queues)s)::text, 4, '0'),
              'task' || n %% %(tasks)s, 'failed', at, at, at, at,
              'TenantError: tenant ' || translate(md5(n::text), '0123456789', 'ghijklmnop')
                  || ' refused the card of customer 4711 at https://api.example.com/v2/charges', '{"n": 1}', '{}'
       FROM generate_series(1, %(failures)s) AS n,
            LATERAL (SELECT now() - n * least(interval '2 s', (now() - date_trunc('day', now(), 'UTC')) / %(failures)s))
                AS t (at)""",
    """INSERT INTO jobq.schedule (name, task, queue, cron, next_at)
       SELECT 'schedule-' || n, 'task' || n %% %(tasks)s, 'tenant-' || lpad((n %% %(queues)s)::text, 4, '0'),
              n %% 60 || ' ' || n %% 24 || ' * * *', now() + n * interval '1 minute'
       FROM generate_series(1, %(schedules)s) AS n""",
    """INSERT INTO jobq.worker (id, lock_key, pid, slots, state, host, version, app, queues, tasks)
       SELECT gen_random_uuid(), n, 1000 + n, 16, 'running', 'box-' || n %% 20, '0.1.0', 'shop.jobs:q',
              ARRAY(SELECT 'tenant-' || lpad((n * 7 + m)::text, 4, '0') FROM generate_series(1, 10) AS m),
              ARRAY(SELECT 'task' || m FROM generate_series(1, %(tasks)s) AS m)
       FROM generate_series(1, %(workers)s) AS n""",
)
LISTS = (
    "/", "/queues", "/queues?sort=-ready", "/queues?sort=-oldest", "/queues?text=0042", "/queues?page=30",
    "/failures", "/failures?sort=-last", "/failures?sort=error", "/failures?text=task42", "/failures?page=200",
    "/workers", "/workers?sort=-memory", "/workers?text=box-7", "/workers?page=4",
    "/schedules", "/schedules?sort=next", "/schedules?text=task42", "/schedules?page=30",
    "/jobs", "/jobs?q=state:failed", "/jobs?q=state:failed&order=id", "/jobs?q=state:failed+task:task42",
    "/queue?name=tenant-0042", "/audit", "/operations", "/system",
)  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.page.lists", description=__doc__)
    parser.add_argument("--requests", type=int, default=20, help="requests of each list (default: 20)")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="jobq-lists-") as home, Server(Path(home)) as server:
        _, url = server.fresh()
        migrate.upgrade(url)
        with psycopg.connect(url, autocommit=True) as connection:
            names = {"failures": FAILURES, "queues": QUEUES, "tasks": TASKS, "schedules": SCHEDULES, "workers": WORKERS}
            for text in _SEED:
                connection.execute(text.encode(), names)
            connection.execute("VACUUM ANALYZE")
            held = show(measure(url, connection, given.requests), server.version)
    if not held:
        raise SystemExit(1)


def measure(url: str, connection: psycopg.Connection[Any], requests: int) -> list[tuple[str, float, list[float], int]]:
    """Return of each list its address, the first answer's milliseconds, those of the others, and its largest size."""
    app = create_app(database_url=url, cache_seconds=0)
    client = app.test_client()
    times: dict[str, list[float]] = {path: [] for path in LISTS}
    sizes = dict.fromkeys(LISTS, 0)
    try:
        for _ in range(requests + 1):
            connection.execute("UPDATE jobq.worker SET heartbeat_at = clock_timestamp()")
            for path in LISTS:
                begun = time.perf_counter()
                response = client.get(path)
                body = response.get_data()
                times[path].append((time.perf_counter() - begun) * 1000)
                if response.status_code != 200:
                    raise SystemExit(f"{path}: {response.status_code}: {body[:300]!r}")
                # A page without what could not be read in 2 s counts with what that took.
                sizes[path] = max(sizes[path], len(body))
    finally:
        close(app)
    # The first compiles templates and reads what was not in memory; the failures' texts, too.
    return [(path, times[path][0], times[path][1:], sizes[path]) for path in LISTS]


def show(found: list[tuple[str, float, list[float], int]], version: str) -> bool:
    """Print the figures beside the promises; return whether all are held."""
    host = machine()
    console = Console(width=140)
    console.print(
        f"{host['cpus']} CPUs ({host['cpu']}), PostgreSQL {version}; {FAILURES:,} distinct faults, {QUEUES:,} queues, "
        f"{TASKS:,} tasks, {SCHEDULES:,} schedules, {WORKERS:,} workers; "
        f"at most {MOST_MS:.0f} ms (p95) and {MOST_BYTES / 1000:.0f} kB",
        highlight=False,
    )
    table = Table()
    for column in ("list", "first ms", "p50 ms", "p95 ms", "kB", ""):
        table.add_column(column, justify="left" if column in ("list", "") else "right")
    held = True
    for path, first, times, size in found:
        good = percentile(times, 95) <= MOST_MS and size <= MOST_BYTES
        held = held and good
        figures = (first, percentile(times, 50), percentile(times, 95), size / 1000)
        table.add_row(path, *(f"{figure:.0f}" for figure in figures), "held" if good else "MISSED")
    console.print(table)
    return held


if __name__ == "__main__":
    main()
