"""Flatness (jobq): how fast jobs are claimed and run, whatever else is in the tables."""

from __future__ import annotations

import sys
from collections.abc import Callable

from bench.figures import Figures, rate
from bench.peers import Peer
from bench.run import Run
from bench.workloads.base import Bench, Workload, only_jobq

Load = Callable[[Run, int], None]


def _sql(run: Run, query: str, values: tuple[int, ...]) -> None:
    run.connection.execute(query.encode(), values)


def _ready(run: Run, jobs: int) -> None:
    # As 1,000 transactions would have left them: times rise with the numbers.
    query = """INSERT INTO jobq.job (task, args, run_at)
               SELECT 'noop', jsonb_build_object('i', i), now() - interval '1 hour' + i / 1000 * interval '1 ms'
               FROM generate_series(0, %s - 1) AS i"""
    _sql(run, query, (jobs,))


def _future(run: Run, jobs: int) -> None:
    query = """INSERT INTO jobq.job (task, args, run_at)
               SELECT 'noop', jsonb_build_object('i', 0), now() + interval '1 day' + i / 1000 * interval '1 ms'
               FROM generate_series(1, %s) AS i"""
    _sql(run, query, (jobs,))


def _history(run: Run, jobs: int) -> None:
    query = """INSERT INTO jobq.job_history (
                   id, claims, attempt, max_attempts, priority, crashes, queue, task, state, run_at, created_at,
                   started_at, finished_at, worker_id, args, headers, result)
               SELECT nextval(pg_get_serial_sequence('jobq.job', 'id')), 1, 1, 10, 5, 0, 'default', 'noop', 'succeeded',
                      now(), now(), now(), now(), '00000000-0000-4000-8000-000000000000', jsonb_build_object('i', i),
                      '{}', 'null'
               FROM generate_series(1, %s) AS i"""
    _sql(run, query, (jobs,))


def _nothing(_run: Run, _jobs: int) -> None:
    """An empty table."""


# Name of the figure, what is loaded, how many; the loads of minutes last.
_STATES: tuple[tuple[str, Load, int], ...] = (
    ("empty", _nothing, 0),
    ("ready_100k", _ready, 100_000),
    ("ready_1m", _ready, 1_000_000),
    ("future_1m", _future, 1_000_000),
    ("ready_10m", _ready, 10_000_000),
    ("history_10m", _history, 10_000_000),
)


def _flatness(bench: Bench, peer: Peer, config: str) -> Figures:
    """Return the rate of the first 20,000 starts of a worker in each state. Loaded tables serve every round."""
    figures: Figures = {}
    for name, load, number in _STATES:
        if number > 1_000_000 and not bench.everything:
            continue
        loaded = bench.number(number, number // 20)
        figures[f"{name}_per_s"] = _measure(bench, peer, config, name, load, loaded)
    for name in list(figures):
        if name != "empty_per_s":
            figures[f"{name.removesuffix('_per_s')}_over_empty"] = figures[name] / figures["empty_per_s"]
    return figures


def _measure(bench: Bench, peer: Peer, config: str, name: str, load: Load, number: int) -> float:
    measured = bench.number(20_000, 1_000)
    first = _head(bench, peer, config, name) if load is _ready and name in bench.kept else 0
    if name not in bench.kept or first + 2 * measured > max(number, 2 * measured):
        if name in bench.kept:
            bench.server.drop(bench.kept.pop(name)[0])
        _prepare(bench, peer, config, name, load, number)
        first = 0
    with bench.run(peer, config, max(number, measured), database=bench.kept[name]) as run:
        if load is not _ready:
            run.call("fill", jobs=measured, first=0)
        run.start_worker()
        # Jobs that an earlier round's worker gave back at its end are elsewhere in the line: room for those.
        look = min(2 * measured, run.record.places - first)
        run.wait_for(lambda: _count(run, first, look) >= measured, f"{measured} jobs were not started")
        run.stop_workers()
        return rate([start for start in run.record.starts(first, look) if start], measured)


def _prepare(bench: Bench, peer: Peer, config: str, name: str, load: Load, number: int) -> None:
    bench.kept[name] = bench.server.fresh()
    with bench.run(peer, config, 1, database=bench.kept[name]) as run:
        run.call("setup")
        load(run, number)
        # As of tables that stand like this for long. Else autovacuum would come in the midst of one state and not of another.
        run.connection.execute("VACUUM ANALYZE jobq.job, jobq.job_history")
        run.connection.execute("CHECKPOINT")


def _head(bench: Bench, peer: Peer, config: str, name: str) -> int:
    """Return the number of the first job in line."""
    with bench.run(peer, config, 1, database=bench.kept[name]) as run:
        row = run.connection.execute(
            """SELECT args ->> 'i' FROM jobq.job WHERE queue = 'default' AND priority = 5 AND state = 'ready'
               ORDER BY run_at, id LIMIT 1"""
        ).fetchone()
        return int(row[0]) if row else sys.maxsize


def _count(run: Run, first: int, look: int) -> int:
    return sum(1 for start in run.record.starts(first, look) if start)


FLATNESS = Workload(
    name="flatness",
    about="jobs a second of one worker, the first 20,000, with what else is in the tables; shares of an empty table's",
    measure=_flatness,
    can=only_jobq,
    headline=(),
    seconds=60,
)
