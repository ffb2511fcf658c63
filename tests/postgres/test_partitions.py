"""Daily partitions: each table and day by itself, rows of default partitions moved or left where they are, none lost."""

from __future__ import annotations

import threading
import uuid
from datetime import UTC, datetime, timedelta
from typing import Any

import psycopg
import pytest
from psycopg import sql

from jobq import operations
from jobq._worker.database import Connection, Database
from jobq._worker.maintenance.partitions import PARENTS, Incomplete
from jobq._worker.maintenance.runner import Maintenance
from jobq._worker.options import WorkerOptions
from jobq._worker.timeouts import MAINTENANCE
from jobq.settings import Settings
from tests.support.waiting import wait_until

Conn = psycopg.Connection[Any]


def drop_days(db: Conn) -> None:
    """As a database is that has had no worker for nine days."""
    for (name,) in db.execute(
        "SELECT relname FROM pg_class WHERE relnamespace = 'jobq'::regnamespace AND relkind = 'r' AND relname ~ '_[0-9]{8}$'"
    ).fetchall():
        db.execute(sql.SQL("DROP TABLE jobq.{}").format(sql.Identifier(name)))


def days(db: Conn) -> int:
    row = db.execute(
        "SELECT count(*) FROM pg_class WHERE relnamespace = 'jobq'::regnamespace AND relkind = 'r' AND relname ~ '_[0-9]{8}$'"
    ).fetchone()
    return int(row[0]) if row is not None else 0


def remember(db: Conn, state: str, finished_at: datetime, rows: int = 1) -> None:
    db.execute(
        "INSERT INTO jobq.job_history (id, claims, attempt, max_attempts, priority, crashes, queue, task, state, run_at,"
        " created_at, finished_at, args, headers)"
        " SELECT n, 1, 1, 1, 5, 0, 'default', 't', %s, now(), now(), %s::timestamptz + n * interval '1 us', '{}', '{}'"
        " FROM generate_series(1, %s) AS n",
        (state, finished_at, rows),
    )


def where(db: Conn) -> dict[str, int]:
    rows = db.execute(
        "SELECT tableoid::regclass::text, count(*) FROM jobq.job_history GROUP BY 1 ORDER BY 1"
    ).fetchall()
    return {name.removeprefix("jobq."): number for name, number in rows}


def today(n: int = 0) -> datetime:
    return datetime.now(UTC).replace(hour=0, minute=0, second=0, microsecond=0) + timedelta(days=n)


def named(state: str, n: int = 0) -> str:
    return f"job_history_{state}_{today(n):%Y%m%d}"


def maintenance(url: str) -> Maintenance:
    return Maintenance(WorkerOptions(app="-", settings=Settings(database_url=url)))


async def connected(url: str) -> Connection:
    return await Database(Settings(database_url=url)).connect("maintenance", MAINTENANCE)


async def test_a_row_in_a_default_partition_moves_to_its_day(db: Conn, database_url: str) -> None:
    """No worker for nine days, and an operator cancels a job."""
    drop_days(db)
    job = db.execute("SELECT jobq.enqueue('t')").fetchone()
    assert job is not None
    operations.cancel(db, "jobq", [job[0]], actor="ann", reason="not needed")
    assert where(db) == {"job_history_cancelled_rest": 1}
    async with await connected(database_url) as connection:
        assert await maintenance(database_url).tasks.make_partitions(connection) == "45 partitions made"
        assert await maintenance(database_url).tasks.make_partitions(connection) == "0 partitions made"
    assert where(db) == {named("cancelled"): 1}
    assert operations.retry(db, "jobq", [job[0]], actor="ann").done == [job[0]]


def test_by_hand_as_doctor_advises(db: Conn) -> None:
    drop_days(db)
    remember(db, "cancelled", datetime.now(UTC))
    remember(db, "failed", today(3))
    assert len(db.execute("SELECT jobq.make_partitions(7)").fetchall()) == 45
    assert where(db) == {named("cancelled"): 1, named("failed", 3): 1}


async def test_one_day_that_cannot_be_made_does_not_stop_the_others(db: Conn, database_url: str) -> None:
    drop_days(db)
    # Something of the operator's has the name.
    db.execute(sql.SQL("CREATE VIEW jobq.{} AS SELECT 1 AS one").format(sql.Identifier(named("failed", 1))))
    remember(db, "failed", today(1))
    db.execute("ALTER TABLE jobq.job_attempt_rest ADD CONSTRAINT odd CHECK (attempt > 0)")
    with psycopg.connect(database_url) as reader:
        reader.execute("SELECT FROM jobq.job_history_expired_rest")
        async with await connected(database_url) as connection:
            with pytest.raises(Incomplete) as told:
                await maintenance(database_url).tasks.make_partitions(connection)
            assert f"job_history_expired of {today():%Y-%m-%d}: canceling statement due to lock timeout" in str(
                told.value
            )
            assert days(db) == 45 - 9 - 1
            reader.rollback()
            made = await maintenance(database_url).tasks.make_partitions(connection)
    assert (made, days(db)) == ("9 partitions made", 44)


async def test_what_a_day_refused_stands_in_the_maintenance_task(db: Conn, database_url: str) -> None:
    drop_days(db)
    with psycopg.connect(database_url) as reader:
        reader.execute("SELECT FROM jobq.job_history_expired_rest")
        found = maintenance(database_url)
        async with await connected(database_url) as connection:
            await found.register(connection)
            db.execute("UPDATE jobq.maintenance_task SET due_at = now() + interval '1 day' WHERE name <> 'partitions'")
            await found.run_due(connection, uuid.uuid4())
    row = db.execute(
        "SELECT last_error, due_at < now() + interval '2 minutes' FROM jobq.maintenance_task WHERE name = 'partitions'"
    ).fetchone()
    assert row is not None
    assert row[0].startswith(f"job_history_expired of {today():%Y-%m-%d}: ")
    assert row[1]


async def test_many_rows_stay_where_they_are_and_the_day_begins_behind_them(db: Conn, database_url: str) -> None:
    """Moving them would hold up what is being written there. Readers see each once, and retention deletes them."""
    drop_days(db)
    remember(db, "succeeded", today(2) + timedelta(hours=1), rows=50)
    made = db.execute("SELECT jobq.make_partition('job_history_succeeded', %s, 20)", [today(2).date()]).fetchone()
    assert made == (named("succeeded", 2),)
    assert where(db) == {"job_history_succeeded_rest": 50}
    remember(db, "succeeded", today(2) + timedelta(hours=2))
    assert where(db) == {named("succeeded", 2): 1, "job_history_succeeded_rest": 50}
    # The whole of a past day: there is nothing left to make one for.
    remember(db, "succeeded", today(-1) + timedelta(hours=1), rows=50)
    none = db.execute("SELECT jobq.make_partition('job_history_succeeded', %s, 20)", [today(-1).date()]).fetchone()
    assert none == (None,)


async def test_retention_reaches_the_default_partitions(db: Conn, database_url: str) -> None:
    remember(db, "succeeded", today(-8), rows=12_000)
    remember(db, "succeeded", today(-6), rows=3)
    remember(db, "failed", today(-91), rows=2)
    db.execute(
        "INSERT INTO jobq.job_attempt (job_id, claims, attempt, outcome, finished_at) VALUES (1, 1, 1, 'error', %s)",
        [today(-91)],
    )
    async with await connected(database_url) as connection:
        report = await maintenance(database_url).tasks.drop_partitions(connection)
    assert report == "0 partitions dropped, 12003 rows of default partitions deleted"
    assert where(db) == {"job_history_succeeded_rest": 3}


@pytest.mark.parametrize("kind", ["TRIGGER refuse BEFORE DELETE", "CONSTRAINT TRIGGER refuse AFTER DELETE"])
async def test_rows_of_a_default_partition_that_cannot_be_deleted_hold_up_no_others(
    db: Conn, database_url: str, kind: str
) -> None:
    """Nor do they keep from being told what a partition refused."""
    for state in ("succeeded", "failed", "cancelled", "expired"):
        remember(db, state, today(-200), rows=40)
    for attempt in range(1, 41):
        db.execute(
            "INSERT INTO jobq.job_attempt (job_id, claims, attempt, outcome, finished_at) VALUES (%s, 1, 1, 'error', %s)",
            (attempt, today(-200)),
        )
    db.execute(
        "CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN"
        " IF OLD.id = 3 AND OLD.state IN ('succeeded', 'cancelled') THEN RAISE EXCEPTION 'the rule'; END IF;"
        " RETURN OLD; END $$"
    )
    deferred = "DEFERRABLE INITIALLY DEFERRED" if "CONSTRAINT" in kind else ""
    for state in ("succeeded", "cancelled"):
        db.execute(f"CREATE {kind} ON jobq.job_history_{state}_rest {deferred} FOR EACH ROW EXECUTE FUNCTION refuse()")
    # A day that is past, and in use.
    db.execute("SELECT jobq.make_partition('job_history_succeeded', %s)", [today(-100).date()])
    found = maintenance(database_url)
    with psycopg.connect(database_url) as reader:
        reader.execute(sql.SQL("SELECT FROM jobq.{}").format(sql.Identifier(named("succeeded", -100))))
        async with await connected(database_url) as connection:
            with pytest.raises(Incomplete) as told:
                await found.tasks.drop_partitions(connection)
            assert str(told.value).split("; ") == [
                f"{named('succeeded', -100)} is not dropped: canceling statement due to lock timeout",
                "job_history_succeeded_rest: job 3: the rule",
                "job_history_cancelled_rest: job 3: the rule",
            ]
            assert where(db) == {"job_history_succeeded_rest": 1, "job_history_cancelled_rest": 1}
            assert db.execute("SELECT count(*) FROM jobq.job_attempt").fetchall() == [(0,)]
            reader.rollback()
            for state in ("succeeded", "cancelled"):
                db.execute(f"DROP TRIGGER refuse ON jobq.job_history_{state}_rest")
            other = maintenance(database_url)
            report = await other.tasks.drop_partitions(connection)
            assert report == "1 partitions dropped, 2 rows of default partitions deleted"


def test_nothing_is_lost_while_rows_are_written(db: Conn, database_url: str) -> None:
    """Acknowledgements write into the default partition at the moment in which their day is made."""
    drop_days(db)
    stop, errors = threading.Event(), list[BaseException]()
    written = [0, 0]

    def write(me: int) -> None:
        with psycopg.connect(database_url, autocommit=True) as connection:
            while not stop.is_set():
                try:
                    connection.execute(
                        "INSERT INTO jobq.job_history (id, claims, attempt, max_attempts, priority, crashes, queue, task,"
                        " state, run_at, created_at, finished_at, args, headers)"
                        " VALUES (%s, 1, 1, 1, 5, 0, 'default', 't', 'succeeded', now(), now(), now(), '{}', '{}')",
                        [me * 1_000_000 + written[me]],
                    )
                except psycopg.Error as error:
                    errors.append(error)
                    return
                written[me] += 1

    threads = [threading.Thread(target=write, args=(n,)) for n in range(2)]
    for thread in threads:
        thread.start()
    made: list[Any] = []

    def make() -> bool:
        made.extend(db.execute("SELECT jobq.make_partitions(3)").fetchall())
        return len(made) == 25

    try:
        wait_until(lambda: errors or min(written) > 50, what="rows")
        wait_until(make, what="the partitions")
        before = list(written)
        wait_until(lambda: errors or min(written) > max(before) + 50, what="more rows")
    finally:
        stop.set()
        for thread in threads:
            thread.join()
    assert errors == []
    assert where(db) == {named("succeeded"): sum(written)}
    row = db.execute("SELECT count(DISTINCT id) FROM jobq.job_history").fetchone()
    assert row == (sum(written),)


def test_only_tables_by_day_and_no_negative_age(db: Conn) -> None:
    for call in (
        "make_partition('job', current_date)",
        "prune_rest('job', '1 day', 1)",
        "rest_due('job', '1 day', 1, '{}')",
    ):
        with pytest.raises(psycopg.errors.InvalidParameterValue, match="not partitioned by day"):
            db.execute(f"SELECT jobq.{call}".encode())
    for call in (
        "drop_partitions('job_attempt', '-1 year')",
        "prune_rest('job_attempt', '-1 year', 1)",
        "rest_due('job_attempt', '-1 year', 1, '{}')",
    ):
        with pytest.raises(psycopg.errors.InvalidParameterValue, match="give an interval of 0 or more"):
            db.execute(f"SELECT jobq.{call}".encode())
    assert len(PARENTS) == 5
