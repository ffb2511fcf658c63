"""Settings of a caller's session that are legal and unusual: jobq's statements do not rely on them, and do not change them."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import psycopg
import pytest
from sqlalchemy import create_engine, text
from sqlalchemy.pool import NullPool

from jobq import InvalidOption, JobQ
from tests.support.servers.connections import alchemy

Conn = psycopg.Connection[Any]
ODD = {
    "DateStyle": "German, DMY",
    "IntervalStyle": "sql_standard",
    "TimeZone": "America/St_Johns",
    "array_nulls": "off",
    "extra_float_digits": "-10",
    "bytea_output": "escape",
    "standard_conforming_strings": "off",
    "client_encoding": "SQL_ASCII",
    "search_path": "",
    "transform_null_equals": "on",
    "backslash_quote": "off",
    "row_security": "off",
    "default_transaction_isolation": "serializable",
}


@pytest.fixture
def q(database_url: str) -> Iterator[JobQ]:
    app = JobQ(database_url)

    @app.task
    def note(text: str = "") -> None: ...

    yield app
    app.close()


def jobs(conn: Conn) -> list[tuple[Any, ...]]:
    rows = conn.execute(
        "SELECT args->>'text', key, group_key, timeout, round(extract(epoch FROM expires_at - created_at)),"
        " run_at > '2040-01-01' FROM jobq.job ORDER BY id"
    ).fetchall()
    conn.rollback()
    return rows


@pytest.mark.parametrize("name", ODD)
def test_everything_is_stored_as_given(q: JobQ, conn: Conn, database_url: str, name: str) -> None:
    note = q.tasks["note"]
    late = datetime(2040, 2, 3, 4, 5, 6, 7, tzinfo=UTC)
    with psycopg.connect(database_url, autocommit=True) as connection:
        connection.execute("SELECT set_config(%s, %s, false)", (name, ODD[name]))
        note.options(key="a", timeout=1.25).enqueue(connection, "é")
        assert not note.options(key="a").enqueue(connection, "é").created
        # Each of these columns has a value in some rows and none in others.
        q.enqueue_many(
            connection,
            [
                note.options(key="b", run_at=late).job("b\\'\"{},NULL"),
                note.options(group="NULL", timeout=0.1).job("NULL"),
                note.options(key="NULL", expires_in=60).job(),
                note.options(delay=timedelta(days=9999)).job(),
            ],
        )
        q.enqueue_many(connection, [note.options(run_at=late, timeout=3).job("é"), note.options(expires_in=5).job()])
        changed = q.queue("mail").set(limit=3, rate="5/10s", groups="fair:2", reason="é", connection=connection)
        assert changed.changed
        settings = q.queue("mail").settings(connection=connection)
        assert (settings.limit, str(settings.rate), str(settings.groups)) == (3, "5/10s", "fair:2")
        assert settings.changed_at is not None
        assert abs(settings.changed_at - datetime.now(UTC)) < timedelta(hours=1)
        assert not q.queue("mail").set(limit=3, connection=connection).changed
        q.queue("mail").pause(connection=connection, reason="é")
        assert q.queue("mail").settings(connection=connection).paused_at is not None
    assert jobs(conn) == [
        ("é", "a", None, 1.25, None, False),
        ("b\\'\"{},NULL", "b", None, None, None, True),
        ("NULL", None, "NULL", 0.1, None, False),
        (None, "NULL", None, None, 60, False),
        (None, None, None, None, None, True),
        ("é", None, None, 3.0, None, True),
        (None, None, None, None, 5, False),
    ]


@pytest.mark.parametrize("kind", ["psycopg", "core"])
def test_text_beyond_the_session_s_encoding(q: JobQ, conn: Conn, database_url: str, kind: str) -> None:
    """JSON has escapes for it. Other texts have none, and are refused before anything is sent."""
    note = q.tasks["note"]
    latin = database_url + ("&" if "?" in database_url else "?") + "client_encoding=LATIN1"
    engine = create_engine(alchemy(latin), poolclass=NullPool)
    opened: Any = psycopg.connect(latin) if kind == "psycopg" else engine.connect()
    with opened as connection:
        note.options(headers={"by": "→"}).enqueue(connection, "…é")
        note.options(key="é").enqueue(connection, "…é\\")
        q.enqueue_many(connection, [note.job("…"), note.job("é")])
        q.enqueue_many(connection, [note.options(key="k").job('…\\"'), note.job("é")])
        for call in (
            lambda: note.options(key="…").enqueue(connection, "x"),
            lambda: note.options(queue="…").enqueue(connection, "x"),
            lambda: q.enqueue_many(connection, [note.options(key="…").job("x"), note.job("y")]),
            lambda: q.queue("mail").set(limit=3, reason="…", connection=connection),
        ):
            with pytest.raises(InvalidOption, match=r"'…' in .*client_encoding.*lacks it"):
                call()
        # In JSON, names of queues have escapes, too.
        q.enqueue_many(connection, [note.options(queue="…").job("x"), note.job("y")])
        connection.execute("SELECT 1" if kind == "psycopg" else text("SELECT 1"))
        connection.commit()
    assert [row[0] for row in jobs(conn)] == ["…é", "…é\\", "…", "é", '…\\"', "é", "x", "y"]
    assert conn.execute("SELECT headers->>'by' FROM jobq.job ORDER BY id LIMIT 1").fetchone() == ("→",)
