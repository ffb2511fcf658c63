"""The rollup maintenance task: what it counts is what history holds, whatever happens in between."""

from __future__ import annotations

import asyncio
import random
from datetime import datetime, timedelta
from typing import Any
from uuid import uuid4

import psycopg
import pytest
from psycopg.rows import dict_row

from jobq._core.histograms import BOUNDS, BUCKETS
from jobq._worker.database import Database
from jobq._worker.maintenance import rollup, rollup_statements
from jobq._worker.maintenance.rollup_statements import Part, plan
from jobq._worker.maintenance.runner import Maintenance
from jobq._worker.options import WorkerOptions
from jobq._worker.timeouts import MAINTENANCE
from jobq.settings import Settings
from tests.support.rows import add_finished, add_job

Conn = psycopg.Connection[Any]
STATES = ("succeeded", "failed", "cancelled", "expired")

_FILL = """
INSERT INTO jobq.job_history (id, claims, attempt, max_attempts, priority, crashes, queue, task, state, run_at,
                              created_at, started_at, finished_at, args, headers)
SELECT nextval('jobq.job_id_seq'), 1, 1, 10, 5, 0, 'queue' || n %% 3, 'task' || n %% 5,
       (ARRAY['succeeded','succeeded','succeeded','failed','cancelled','expired'])[1 + n %% 6],
       at - (n %% 50) * interval '0.3 s', at - interval '1 h',
       CASE WHEN n %% 7 > 0 THEN at - (n %% 20) * interval '0.1 s' END, at, '{}', '{}'
FROM generate_series(1, %(number)s) AS n
CROSS JOIN LATERAL (
    SELECT clock_timestamp() - %(ago)s * interval '1 s' + n * (%(ago)s - %(till)s) * interval '1 s' / %(number)s AS at) AS t
"""


def fill(db: Conn, number: int, *, ago: float, till: float = 0) -> None:
    """Insert finished jobs, spread evenly from `ago` to `till` seconds ago, in order."""
    db.execute(_FILL, {"number": number, "ago": ago, "till": till})


def run(url: str) -> str:
    """One run of the maintenance task, over a connection as the worker has it."""

    async def once() -> str:
        connection = await Database(Settings(database_url=url)).connect("maintenance", MAINTENANCE)
        async with connection, connection.transaction():
            return await rollup.rollup(connection, "jobq")

    return asyncio.run(once())


def counted(db: Conn, of: str, span: int) -> dict[Any, tuple[int, ...]]:
    """What the rollups say, by begin of the span and name; rows of nothing left out."""
    rows = db.execute(f"SELECT * FROM jobq.rollup_{of} WHERE span = %s".encode(), (span,))
    names = [column.name for column in rows.description or ()]
    found = [dict(zip(names, row, strict=True)) for row in rows]
    return {
        (row["at"], row[of]): (*(row[state] for state in STATES), sum(row["waits"]), sum(row["runs"]))
        for row in found
        if row[of] and any(row[state] for state in STATES)
    }


def recounted(db: Conn, of: str, span: int) -> dict[Any, tuple[int, ...]]:
    """What history says of the minutes that have a rollup."""
    rows = db.execute(
        f"""
        SELECT date_bin(%(span)s * interval '1 s', finished_at, 'epoch') AS span, {of},
               count(*) FILTER (WHERE state = 'succeeded'), count(*) FILTER (WHERE state = 'failed'),
               count(*) FILTER (WHERE state = 'cancelled'), count(*) FILTER (WHERE state = 'expired'),
               count(started_at), count(started_at) FILTER (WHERE state IN ('succeeded', 'failed'))
        FROM jobq.job_history
        WHERE date_bin('1 minute', finished_at, 'epoch') IN (SELECT at FROM jobq.rollup_queue WHERE span = 60 AND queue = '')
        GROUP BY 1, 2
        """.encode(),
        {"span": span},
    )
    return {(row[0], row[1]): tuple(row[2:]) for row in rows}


def check(db: Conn) -> int:
    """Hold all rollups to a count over history; return how many jobs they hold."""
    for of in ("queue", "task"):
        for span in (60, 600, 3600):
            assert counted(db, of, span) == recounted(db, of, span), (of, span)
    totals = db.execute(
        "SELECT sum(succeeded + failed + cancelled + expired) FROM jobq.rollup_queue WHERE span = 60 AND queue = ''"
    )
    (total,) = totals.fetchone() or (0,)
    assert total == sum(sum(row[:4]) for row in counted(db, "queue", 60).values())
    return int(total)


def rewind(db: Conn, minutes: int) -> None:
    """Make it as if the last runs had not been: rollups and marks of the last minutes are gone."""
    for table in ("rollup_queue", "rollup_task"):
        db.execute(
            f"DELETE FROM jobq.{table} WHERE span = 60 AND at >= now() - %s * interval '1 min'".encode(), (minutes,)
        )
    db.execute("DELETE FROM jobq.rollup_mark WHERE at >= now() - %s * interval '1 min'", (minutes,))


def test_a_count_over_history_gives_the_same(db: Conn, database_url: str) -> None:
    fill(db, 20_000, ago=7000)
    assert run(database_url).endswith("jobs in 120 minutes")
    before = check(db)
    assert before > 19_000
    # Again, at once: the same.
    run(database_url)
    assert check(db) >= before
    # Every minute has a total, those without jobs as well.
    row = db.execute("SELECT count(*), count(ready) FROM jobq.rollup_queue WHERE span = 60 AND queue = ''").fetchone()
    assert row is not None
    assert row[0] == 120 or row[0] == 121


def test_a_missed_hour_is_made_up_for(db: Conn, database_url: str) -> None:
    fill(db, 2_000, ago=7200, till=3600)
    run(database_url)
    rewind(db, 60)
    fill(db, 2_000, ago=3500)
    assert int(run(database_url).split()[2 + 1]) in range(60, 68)
    assert check(db) > 3_900


def test_a_missed_day_is_made_up_for_in_steps(db: Conn, database_url: str) -> None:
    fill(db, 5_000, ago=30 * 3600, till=10)
    db.execute(
        "INSERT INTO jobq.rollup_queue (span, at, queue) VALUES (60, date_trunc('minute', now()) - interval '25 hours', '')"
    )
    db.execute(
        "INSERT INTO jobq.rollup_mark SELECT now() - interval '25.1 hours', 0, part FROM"
        " (SELECT relname FROM pg_class WHERE relname LIKE 'job_history%%') AS part (part)",
        (),
    )
    reports = [run(database_url) for _ in range(14)]
    assert [int(report.split()[3]) for report in reports[:12]] == [120] * 12
    assert int(reports[-1].split()[3]) in (3, 4)
    assert check(db) > 4_100
    row = db.execute("SELECT count(*) FROM jobq.rollup_queue WHERE span = 60 AND queue = ''").fetchone()
    assert row is not None
    assert row[0] in range(1500, 1505)


def test_what_commits_late_is_counted_by_a_later_run(db: Conn, database_url: str) -> None:
    fill(db, 500, ago=600, till=130)
    with psycopg.connect(database_url) as late:
        fill(late, 100, ago=120, till=61)
        fill(db, 100, ago=120, till=61)
        run(database_url)
        first = check(db)
        late.commit()
    run(database_url)
    assert check(db) == first + 100


def test_what_was_redriven_meanwhile_is_taken_back(db: Conn, database_url: str) -> None:
    fill(db, 600, ago=150, till=61)
    run(database_url)
    first = check(db)
    db.execute("DELETE FROM jobq.job_history WHERE state = 'failed' AND finished_at > now() - interval '140 s'")
    run(database_url)
    assert check(db) < first


def test_rows_in_space_set_free_are_counted_in_a_small_partition(db: Conn, database_url: str) -> None:
    fill(db, 6_000, ago=3600, till=300)
    run(database_url)
    db.execute("DELETE FROM jobq.job_history WHERE state = 'failed' AND finished_at < now() - interval '600 s'")
    db.execute("VACUUM jobq.job_history")
    mark = db.execute("SELECT max(pages) FROM jobq.rollup_mark WHERE part LIKE 'job_history_failed%'").fetchone()
    fill(db, 1_000, ago=120, till=61)
    low = db.execute(
        "SELECT min((ctid::text::point)[0]) FROM jobq.job_history"
        " WHERE state = 'failed' AND finished_at > now() - interval '125 s'"
    ).fetchone()
    assert low is not None
    assert mark is not None
    assert low[0] < mark[0] - 1, "the case this is about"
    run(database_url)
    assert counted_since(db, 130) == recounted_since(db, 130)


def counted_since(db: Conn, seconds: int) -> dict[Any, tuple[int, ...]]:
    edge = _edge(db, seconds)
    return {key: value for key, value in counted(db, "queue", 60).items() if key[0] >= edge}


def recounted_since(db: Conn, seconds: int) -> dict[Any, tuple[int, ...]]:
    edge = _edge(db, seconds)
    return {key: value for key, value in recounted(db, "queue", 60).items() if key[0] >= edge}


def _edge(db: Conn, seconds: int) -> datetime:
    row = db.execute("SELECT date_trunc('minute', now() - %s * interval '1 s')", (seconds,)).fetchone()
    assert row is not None
    edge: datetime = row[0]
    return edge


def test_rows_without_a_days_partition_are_counted(db: Conn, database_url: str) -> None:
    today = db.execute("SELECT to_char(now() AT TIME ZONE 'UTC', 'YYYYMMDD')").fetchone()
    assert today is not None
    for state in STATES:
        db.execute(f"DROP TABLE jobq.job_history_{state}_{today[0]}".encode())
    fill(db, 500, ago=120)
    in_rest = db.execute("SELECT count(*) FROM jobq.job_history WHERE tableoid::regclass::text LIKE '%rest'").fetchone()
    assert in_rest is not None
    assert in_rest[0] > 0
    run(database_url)
    assert check(db) > 0


def test_one_that_breaks_off_leaves_nothing(db: Conn, database_url: str) -> None:
    fill(db, 3_000, ago=900)

    async def broken() -> None:
        connection = await Database(Settings(database_url=database_url)).connect("maintenance", MAINTENANCE)
        async with connection, connection.transaction():
            await rollup.rollup(connection, "jobq")
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        asyncio.run(broken())
    assert db.execute("SELECT count(*) FROM jobq.rollup_mark").fetchone() == (0,)
    run(database_url)
    assert check(db) > 2_000


def test_two_workers_at_the_same_time(db: Conn, database_url: str) -> None:
    """One of them does it; the row of the maintenance task is locked meanwhile, and not due afterwards."""
    fill(db, 2_000, ago=900)
    settings = Settings(database_url=database_url)

    async def worker() -> int:
        maintenance = Maintenance(WorkerOptions(settings=settings, app="tests.apps.plain:q"))
        async with await Database(settings).connect("maintenance", MAINTENANCE) as connection:
            await maintenance.register(connection)
            return await maintenance.run_due(connection, uuid4())

    async def both() -> tuple[int, int]:
        return await asyncio.gather(worker(), worker())

    assert sum(asyncio.run(both())) == db.execute("SELECT count(*) FROM jobq.maintenance_task").fetchall()[0][0]
    assert check(db) > 1_500


def test_histograms_and_depth(db: Conn, database_url: str) -> None:
    for seconds in (0.0005, 0.003, 0.003, 1.5, 100_000):
        db.execute(
            "INSERT INTO jobq.job_history (id, claims, attempt, max_attempts, priority, crashes, queue, task, state, run_at,"
            " created_at, started_at, finished_at, args, headers) SELECT 1, 1, 1, 1, 5, 0, 'q', 't', 'succeeded',"
            " at - %(s)s * interval '1 s', at, at, at + interval '0.05 s', '{}', '{}'"
            " FROM (SELECT date_trunc('minute', now()) - interval '30 s') AS t (at)",
            {"s": seconds},
        )
    for n in range(5):
        add_job(db, queue="deep", run_in=-60 * n - 1)
    add_job(db, queue="later", run_in=600)
    run(database_url)
    rows = db.execute("SELECT waits, runs FROM jobq.rollup_queue WHERE queue = 'q' AND span = 60").fetchall()
    ((waits, runs),) = rows
    assert len(waits) == len(runs) == BUCKETS
    assert {n: count for n, count in enumerate(waits) if count} == {0: 1, 2: 2, 11: 1, BUCKETS - 1: 1}
    assert {n: count for n, count in enumerate(runs) if count} == {6: 5}
    assert BOUNDS[5] <= 0.05 < BOUNDS[6]
    for span in (60, 600, 3600):
        found = {queue: (ready, oldest) for queue, ready, oldest in db.execute(
            "SELECT DISTINCT ON (queue) queue, ready, oldest_ready_seconds FROM jobq.rollup_queue"
            " WHERE span = %s ORDER BY queue, at DESC",
            (span,)).fetchall()}  # fmt: skip
        assert found["deep"][0] == found[""][0] == 5
        assert 240 < found["deep"][1] < 300
        assert found["q"] == (0, None)
        assert "later" not in found


def test_depth_of_a_deep_queue_is_estimated(db: Conn, database_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rollup, "DEPTH_BOUND", 100)
    db.execute(
        "INSERT INTO jobq.job (task, queue) SELECT 't', CASE WHEN n % 4 = 0 THEN 'a' ELSE 'b' END"
        " FROM generate_series(1, 20000) AS n"
    )
    db.execute("ANALYZE jobq.job")
    run(database_url)
    found = dict(db.execute("SELECT queue, ready FROM jobq.rollup_queue WHERE span = 60 AND ready > 0").fetchall())
    assert found["a"] == pytest.approx(5_000, rel=0.1)
    assert found["b"] == pytest.approx(15_000, rel=0.1)
    assert found[""] == found["a"] + found["b"]


def test_a_sample_comes_near(db: Conn, database_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    fill(db, 150_000, ago=600)
    monkeypatch.setattr(rollup_statements, "PAGES", 400)
    monkeypatch.setattr(rollup_statements, "SLACK_PAGES", 10)
    assert "from a sample" in run(database_url)
    row = db.execute(
        "SELECT sum(succeeded), sum(failed) FROM jobq.rollup_queue WHERE span = 3600 AND queue = ''"
    ).fetchone()
    truth = db.execute(
        "SELECT count(*) FILTER (WHERE state = 'succeeded'), count(*) FILTER (WHERE state = 'failed') FROM jobq.job_history"
        " WHERE finished_at < date_trunc('minute', now())"
    ).fetchone()
    assert row is not None
    assert truth is not None
    assert row[0] == pytest.approx(truth[0], rel=0.1)
    assert row[1] == pytest.approx(truth[1], rel=0.1)


def test_a_minute_has_a_bounded_number_of_rows(db: Conn, database_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rollup, "NAMES", 3)
    monkeypatch.setattr(rollup_statements, "NAMES", 3)
    for n in range(6):
        for _ in range(n + 1):
            add_finished(db, "succeeded", queue=f"q{n}", task=f"t{n}", ago=90)
    run(database_url)
    for of in ("queue", "task"):
        rows = db.execute(
            f"SELECT {of}, succeeded FROM jobq.rollup_{of} WHERE span = 60 AND succeeded > 0".encode()
        ).fetchall()
        assert {name: number for name, number in rows if name} == {f"{of[0]}5": 6, f"{of[0]}4": 5, f"{of[0]}3": 4}
    assert db.execute("SELECT sum(succeeded) FROM jobq.rollup_queue WHERE span = 60 AND queue = ''").fetchone() == (21,)


def test_what_is_old_goes(db: Conn, database_url: str) -> None:
    for span, kept, gone in ((60, "25 h", "27 h"), (600, "7 d", "9 d"), (3600, "31 d", "33 d")):
        for table, of in (("rollup_queue", "queue"), ("rollup_task", "task")):
            for age in (kept, gone):
                db.execute(
                    f"INSERT INTO jobq.{table} (span, at, {of}) VALUES (%s, now() - %s::interval, %s)".encode(),
                    (span, age, age),
                )
    run(database_url)
    for table, of in (("rollup_queue", "queue"), ("rollup_task", "task")):
        left = {row[0] for row in db.execute(f"SELECT {of} FROM jobq.{table} WHERE {of} <> ''".encode())}
        assert left == {"25 h", "7 d", "31 d"}


def test_marks_stay_few(db: Conn, database_url: str) -> None:
    for minutes in range(60):
        db.execute(
            "INSERT INTO jobq.rollup_mark (part, at, pages) VALUES ('p', now() - %s * interval '1 min', 1)", (minutes,)
        )
    run(database_url)
    row = db.execute(
        "SELECT count(*), min(at) BETWEEN now() - interval '13 min' AND now() - interval '9 min'"
        " FROM jobq.rollup_mark WHERE part = 'p'"
    ).fetchone()
    assert row is not None
    assert row[0] <= 12
    assert row[1]


def test_it_is_due_just_after_a_minute(db: Conn, database_url: str) -> None:
    """`Maintenance.run_due` with every maintenance task: one that is aligned to the clock, and those that are not."""
    settings = Settings(database_url=database_url)
    maintenance = Maintenance(WorkerOptions(settings=settings, app="tests.apps.plain:q"))

    async def once() -> int:
        async with await Database(settings).connect("maintenance", MAINTENANCE) as connection:
            await maintenance.register(connection)
            return await maintenance.run_due(connection, uuid4())

    assert asyncio.run(once()) == len(maintenance.by_name)
    with db.cursor(row_factory=dict_row) as cursor:
        rows = {
            row["name"]: row
            for row in cursor.execute(
                "SELECT *, extract(second FROM due_at) AS second, due_at - now() AS wait FROM jobq.maintenance_task"
            ).fetchall()
        }
    assert {name: row["last_error"] for name, row in rows.items()} == dict.fromkeys(maintenance.by_name)
    assert rows["rollup"]["second"] == 2
    assert timedelta(0) < rows["rollup"]["wait"] <= timedelta(seconds=62)
    assert rows["rollup"]["last_report"].endswith("minutes")


def test_a_maintenance_task_that_fails_keeps_no_other_and_no_worker_back(
    db: Conn, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = Settings(database_url=database_url)
    maintenance = Maintenance(WorkerOptions(settings=settings, app="tests.apps.plain:q"))

    async def divides_by_nothing(*_: Any) -> str:
        return str(1 / 0)

    async def takes_too_long(connection: Any, *_: Any) -> str:
        await connection.execute("SET LOCAL statement_timeout = 50")
        await connection.execute("SELECT pg_sleep(30)")
        return ""

    async def once() -> int:
        async with await Database(settings).connect("maintenance", MAINTENANCE) as connection:
            await maintenance.register(connection)
            return await maintenance.run_due(connection, uuid4())

    for work, told in ((divides_by_nothing, "ZeroDivisionError: division by zero"), (takes_too_long, "timeout")):
        db.execute("UPDATE jobq.maintenance_task SET due_at = now() - interval '1 hour', last_error = NULL")
        monkeypatch.setattr("jobq._worker.maintenance.tasks.rollup", work)
        assert asyncio.run(once()) == len(maintenance.by_name)
        errors = dict(db.execute("SELECT name, last_error FROM jobq.maintenance_task").fetchall())
        assert told in errors.pop("rollup")
        assert set(errors.values()) == {None}
        assert db.execute("SELECT FROM jobq.maintenance_task WHERE due_at <= now()").fetchall() == []


@pytest.mark.parametrize("kind", ["TRIGGER refuse BEFORE INSERT", "CONSTRAINT TRIGGER refuse AFTER INSERT"])
def test_a_queue_and_a_task_that_are_refused_cost_no_other_its_counts(db: Conn, database_url: str, kind: str) -> None:
    settings = Settings(database_url=database_url)
    for n in range(40):
        add_finished(db, "succeeded", ago=61 + n, queue="bad" if n == 3 else f"q{n % 7}", task="odd" if n == 5 else "t")
    for of, name in (("queue", "bad"), ("task", "odd")):
        db.execute(
            f"CREATE FUNCTION refuse_{of}() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN"
            f" IF NEW.{of} = '{name}' THEN RAISE EXCEPTION 'the rule'; END IF; RETURN NEW; END $$"
        )
        deferred = "DEFERRABLE INITIALLY DEFERRED" if "CONSTRAINT" in kind else ""
        db.execute(f"CREATE {kind} ON jobq.rollup_{of} {deferred} FOR EACH ROW EXECUTE FUNCTION refuse_{of}()")
    add_job(db, queue="bad")
    add_job(db, queue="deep")

    async def once(maintenance: Maintenance) -> tuple[Any, ...]:
        async with await Database(settings).connect("maintenance", MAINTENANCE) as connection:
            await maintenance.register(connection)
            db.execute(
                "UPDATE jobq.maintenance_task SET due_at = CASE WHEN name = 'rollup' THEN now() ELSE now() + interval '1 h' END"
            )
            await maintenance.run_due(connection, uuid4())
        [row] = db.execute("SELECT last_report, last_error FROM jobq.maintenance_task WHERE name = 'rollup'").fetchall()
        return tuple(row)

    def sums(of: str, span: int) -> dict[str, int]:
        query = f"SELECT {of}, sum(succeeded)::integer FROM jobq.rollup_{of} WHERE span = %s GROUP BY 1"
        return {name: number for name, number in db.execute(query.encode(), (span,)).fetchall() if number}

    maintenance = Maintenance(WorkerOptions(settings=settings, app="tests.apps.plain:q"))
    for _ in range(2):
        _, error = asyncio.run(once(maintenance))
        assert error.endswith("refused: row queue/bad: the rule; row task/odd: the rule")
        for span in (60, 600, 3600):
            assert sums("queue", span) == {"": 40, "q0": 6, "q1": 6, "q2": 6, "q3": 5, "q4": 6, "q5": 5, "q6": 5}
            assert sums("task", span) == {"t": 39}
        deep = "SELECT queue FROM jobq.rollup_queue WHERE span = 60 AND ready > 0 ORDER BY 1"
        assert [queue for (queue,) in db.execute(deep).fetchall()] == ["", "deep"]
    for of in ("queue", "task"):
        db.execute(f"DROP TRIGGER refuse ON jobq.rollup_{of}")
    report, error = asyncio.run(once(Maintenance(WorkerOptions(settings=settings, app="tests.apps.plain:q"))))
    assert (report.split()[0], error) == ("40", None)
    assert sums("queue", 3600)["bad"] == sums("task", 3600)["odd"] == 1


def test_old_rows_that_cannot_be_deleted_keep_nothing_from_being_counted(db: Conn, database_url: str) -> None:
    db.execute("INSERT INTO jobq.rollup_task (span, at, task) VALUES (60, now() - interval '90 days', 'old')")
    db.execute(
        "CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE EXCEPTION 'the rule'; END $$"
    )
    db.execute("CREATE TRIGGER refuse BEFORE DELETE ON jobq.rollup_task FOR EACH ROW EXECUTE FUNCTION refuse()")
    add_finished(db, "succeeded", ago=61)
    settings = Settings(database_url=database_url)

    async def once() -> None:
        async with await Database(settings).connect("maintenance", MAINTENANCE) as connection:
            maintenance = Maintenance(WorkerOptions(settings=settings, app="tests.apps.plain:q"))
            await maintenance.register(connection)
            await maintenance.run_due(connection, uuid4())

    asyncio.run(once())
    [(error,)] = db.execute("SELECT last_error FROM jobq.maintenance_task WHERE name = 'rollup'").fetchall()
    assert error.startswith("1 jobs in ")
    assert "no old row deleted: the rule" in error
    assert sum(row[0] for row in db.execute("SELECT succeeded FROM jobq.rollup_task WHERE span = 60").fetchall()) == 1


def test_the_plan_of_pages_covers_all_or_an_even_sample() -> None:
    day = datetime.fromisoformat("2026-11-25T00:00:00+00:00")
    since, until = day + timedelta(hours=1), day + timedelta(hours=2)
    rng = random.Random(5)
    for _ in range(200):
        parts = [
            Part(
                name=state,
                state=state,
                day=day,
                pages=rng.randrange(10 ** rng.randrange(1, 7)),
                before=rng.randrange(10_000),
            )
            for state in STATES
        ]
        for part in parts:
            found = [stretch for stretch in plan(parts, since, until) if stretch.state == part.state]
            size = part.pages - part.first
            if not size:
                assert found == []
            elif found[0].end is None:
                assert [(stretch.first, stretch.weight) for stretch in found] == [(part.first, 1.0)]
            else:
                ends = [0, *(stretch.end or 0 for stretch in found)]
                assert all(stretch.first >= end for stretch, end in zip(found, ends, strict=False))
                assert found[0].first >= part.first
                assert ends[-1] <= part.pages
                pages = sum((stretch.end or 0) - stretch.first for stretch in found)
                assert sum(((stretch.end or 0) - stretch.first) * stretch.weight for stretch in found) == pytest.approx(
                    size
                )
                assert pages <= rollup_statements.PAGES
