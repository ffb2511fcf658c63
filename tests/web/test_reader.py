"""The page's reading transaction: one moment, whatever is cut off in it; and what it costs."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import psycopg
import pytest

from jobq.settings import Settings
from jobq.web.database import Database
from tests.support.rows import add_job
from tests.support.web import Conn


@pytest.fixture
def database(database_url: str) -> Iterator[Database]:
    made = Database(Settings.load(database_url=database_url), query_timeout=0.1)
    yield made
    made.close()


def count(conn: Conn, schema: str) -> int:
    row = conn.execute(f"SELECT count(*) FROM {schema}.job").fetchone()
    assert row is not None
    return int(row[0])


def slow(conn: Conn, schema: str, seconds: float = 20) -> str:
    conn.execute("SET LOCAL work_mem = '12345kB'")
    conn.execute("SELECT pg_sleep(%s)", (seconds,))
    return "slept"


def setting(conn: Conn, schema: str, name: str) -> Any:
    row = conn.execute("SELECT current_setting(%s)", (name,)).fetchone()
    return row and row[0]


def test_the_moment_outlives_what_was_cut_off(database: Database, db: Conn) -> None:
    with database.read() as reader:
        # The first query takes the snapshot, and is itself cut off.
        assert reader(slow) is None
        before = reader.now()
        add_job(db)
        assert reader(count) == 0
        assert reader(slow, default=7, name="the second") == 7
        assert reader(count) == 0
        assert reader.now() == before
        assert reader(setting, "transaction_isolation") == "repeatable read"
        assert reader(setting, "transaction_read_only") == "on"
        assert reader(setting, "jit") == "off"
        assert reader(setting, "work_mem") != "12345kB"
        assert reader.missing == ["slow", "the second"]
    with database.read() as reader:
        assert reader(count) == 1


def test_many_slow_queries_have_a_budget(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("jobq.web.database._PAGE_BUDGET", 0.5)
    database.query_timeout = 20
    with database.read() as reader:
        reader.connection.execute("SET LOCAL statement_timeout = 300")
        assert [reader(slow, 20) for _ in range(5)] == [None] * 5
        assert reader(setting, "statement_timeout") == "100ms"


def test_only_timeouts_make_a_page_partial(database: Database) -> None:
    with pytest.raises(psycopg.errors.UndefinedTable), database.read() as reader:
        reader(lambda conn, schema: conn.execute("SELECT * FROM nothing"))
    with pytest.raises(psycopg.errors.QueryCanceled), database.read() as reader:
        reader.require(slow)
    with pytest.raises(psycopg.errors.ReadOnlySqlTransaction), database.read() as reader:
        reader(lambda conn, schema: conn.execute(f"DELETE FROM {schema}.job"))
    with database.read() as reader:
        assert reader(count) == 0


def test_a_read_only_page_writes_nothing_at_all(database_url: str, db: Conn) -> None:
    add_job(db)
    database = Database(Settings.load(database_url=database_url), read_only=True)
    try:
        with pytest.raises(psycopg.errors.ReadOnlySqlTransaction), database.write() as conn:
            conn.execute("DELETE FROM jobq.job")
        with database.write() as conn:
            assert count(conn, "jobq") == 1
        with database.stream() as conn, conn.transaction():
            assert count(conn, "jobq") == 1
            with pytest.raises(psycopg.errors.ReadOnlySqlTransaction), conn.transaction():
                conn.execute("DELETE FROM jobq.job")
    finally:
        database.close()
