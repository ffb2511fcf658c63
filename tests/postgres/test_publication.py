"""Under a publication of all tables every row can be changed and deleted, and a subscriber can follow."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import closing
from datetime import UTC, datetime
from typing import Any

import psycopg
import pytest
from psycopg import sql

from jobq import migrate, operations
from jobq.diagnostics import Snapshot
from jobq.diagnostics.partitions import PARTITION_CHECKS
from tests.apps import plain as apps
from tests.support.checks import some
from tests.support.jobs import Jobs
from tests.support.servers import postgres
from tests.support.waiting import wait_until
from tests.support.workers import WorkerProcess

Conn = psycopg.Connection[Any]


@pytest.fixture(scope="module")
def logical() -> Iterator[postgres.Server]:
    server = postgres.start("-h 127.0.0.1 -F -c wal_level=logical -c max_connections=60 -c autovacuum_naptime=10min")
    yield server
    server.stop()


@pytest.fixture
def url(logical: postgres.Server) -> Iterator[str]:
    with postgres.database(logical) as url:
        migrate.upgrade(url)
        yield url


@pytest.fixture
def db(url: str) -> Iterator[Conn]:
    with closing(psycopg.connect(url, autocommit=True)) as connection:
        connection.execute("CREATE PUBLICATION everything FOR ALL TABLES")
        yield connection


def tables(db: Conn) -> list[str]:
    rows = db.execute(
        "SELECT relname FROM pg_class WHERE relnamespace = 'jobq'::regnamespace AND relkind IN ('r', 'p') ORDER BY 1"
    ).fetchall()
    return [name for (name,) in rows]


def test_rows_of_every_table_can_be_changed_and_deleted(db: Conn) -> None:
    db.execute("SELECT jobq.make_partitions(9)")
    assert len(tables(db)) > 60
    for table in some(tables(db)):
        name = sql.Identifier("jobq", table)
        column = db.execute(
            "SELECT attname FROM pg_attribute WHERE attrelid = format('jobq.%%I', %s::text)::regclass AND attnum > 0"
            " AND NOT attisdropped AND attidentity = '' LIMIT 1",
            [table],
        ).fetchone()
        assert column is not None
        # Whether the server allows it is asked for the statement, whatever rows there are.
        db.execute(sql.SQL("UPDATE {} SET {} = {} WHERE false").format(name, *[sql.Identifier(column[0])] * 2))
        db.execute(sql.SQL("DELETE FROM {} WHERE false").format(name))
    assert [finding.message for finding in PARTITION_CHECKS["publications"][0](Snapshot(db, "jobq"))] == []


def test_doctor_names_what_a_publication_keeps_from_being_changed(db: Conn) -> None:
    db.execute("ALTER TABLE jobq.group_ready REPLICA IDENTITY DEFAULT")
    (finding,) = PARTITION_CHECKS["publications"][0](Snapshot(db, "jobq"))
    assert "publication everything (for all tables) publishes changes of group_ready" in finding.message
    db.execute(finding.fix.partition(",")[0].encode())
    assert list(PARTITION_CHECKS["publications"][0](Snapshot(db, "jobq"))) == []


@pytest.mark.parametrize("root", [False, True])
def test_a_worker_and_an_operator_at_work(db: Conn, url: str, worker: Callable[..., WorkerProcess], root: bool) -> None:
    if root:
        db.execute("ALTER PUBLICATION everything SET (publish_via_partition_root = true)")
    db.execute("SELECT pg_create_logical_replication_slot('follower', 'pgoutput')")
    with closing(Jobs(url)) as jobs:
        apps.create_traces(jobs.connection)
        db.execute("ALTER TABLE ran REPLICA IDENTITY FULL")
        operations.configure(db, "jobq", "default", groups="ordered", actor="ann")
        good = apps.q.tasks["record"].options(group="g").enqueue(db, "good")
        bad = apps.q.tasks["always_fail"].options(max_attempts=2).enqueue(db)
        running = worker("--processes", "1", database_url=url)
        assert jobs.wait(good.id)["state"] == "succeeded"
        assert jobs.wait(bad.id)["state"] == "failed"
        running.terminate()
        running.wait(30)
        assert operations.retry(db, "jobq", [bad.id], actor="ann").done == [bad.id]
        assert operations.delete(db, "jobq", [bad.id, good.id], actor="ann").done == [good.id, bad.id]

    def followed() -> bool:
        rows = db.execute(
            "SELECT get_byte(data, 0) FROM pg_logical_slot_get_binary_changes("
            "'follower', NULL, NULL, 'proto_version', '1', 'publication_names', 'everything')"
        ).fetchall()
        seen.update(chr(kind) for (kind,) in rows)
        return {"I", "U", "D"} <= seen

    seen = set[str]()
    wait_until(followed, what="the changes")
    db.execute("SELECT pg_drop_replication_slot('follower')")


def test_partitions_from_before_the_migration(logical: postgres.Server) -> None:
    """Those that there are at the migration, and those that are made later; and none is left behind on the way back."""
    with postgres.database(logical) as url:
        migrate.upgrade(url)
        with closing(psycopg.connect(url, autocommit=True)) as db:
            assert identities(db) == {"f"}
            db.execute("SELECT jobq.make_partition('job_attempt', %s)", [datetime(2030, 1, 31, tzinfo=UTC).date()])
            assert identities(db) == {"f"}


def identities(db: Conn) -> set[str]:
    rows = db.execute(
        "SELECT DISTINCT relreplident FROM pg_class WHERE relnamespace = 'jobq'::regnamespace"
        " AND relkind IN ('r', 'p') AND relname ~ '^job_(turn|history|attempt)'"
    ).fetchall()
    return {identity if isinstance(identity, str) else identity.decode() for (identity,) in rows}
