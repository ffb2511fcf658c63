"""What the server denies to a role is an error of jobq's by name, and psycopg's as before."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import psycopg
import pytest
from click.testing import CliRunner
from sqlalchemy import create_engine
from sqlalchemy.pool import NullPool

from jobq import JobQ, PermissionDenied, SchemaError, operations, queries
from jobq.cli import main
from tests.support.servers.connections import alchemy as alchemy_url
from tests.support.servers.roles import Login, logins

DENIED = psycopg.errors.InsufficientPrivilege


@pytest.fixture
def login(database_url: str) -> Iterator[Login]:
    with logins(database_url) as made:
        yield made


async def test_who_may_not_cancel_is_told_so(login: Login, conn: psycopg.Connection[Any]) -> None:
    conn.execute("INSERT INTO jobq.job (task) VALUES ('t')")
    conn.commit()
    ref = JobQ(login("producer")).ref(1)
    assert ref.status() == "ready"
    with pytest.raises(PermissionDenied, match=r"may not do this: permission denied .*deploy/roles\.sql"):
        ref.cancel()
    with pytest.raises(PermissionDenied):
        await ref.cancel_async()


async def test_a_missing_right_is_an_error_of_ours(login: Login) -> None:
    """On the caller's connection and on jobq's own, of every kind; and psycopg's own error as before."""
    url = login("viewer")
    app = JobQ(url)

    @app.task
    def greet(name: str) -> None: ...

    engine = create_engine(alchemy_url(url), poolclass=NullPool)
    with psycopg.connect(url) as connection, engine.connect() as alchemy:
        job = greet.options(key="k").job("a")
        for call in (
            lambda: greet.submit("a"),
            lambda: greet.enqueue(connection, "a"),
            lambda: greet.enqueue(alchemy, "a"),
            lambda: app.enqueue_many(connection, [greet.job("a"), greet.job("b")]),
            lambda: app.enqueue_many(connection, [job, greet.job("b")]),
            lambda: app.queue("mail").set(limit=3),
            lambda: app.queue("mail").set(limit=3, connection=connection),
            lambda: app.queue("mail").set(limit=3, connection=alchemy),
            lambda: app.add_schedule(greet, every=timedelta(hours=1), name="s", args={"name": "a"}, actor="ann"),
            lambda: operations.configure(connection, "jobq", "mail", limit=3, actor="ann"),
            lambda: operations.pause_schedule(connection, "jobq", "s", actor="ann"),
        ):
            with pytest.raises(
                PermissionDenied, match=r"may not do this: permission denied .*deploy/roles\.sql"
            ) as found:
                call()
            assert isinstance(found.value, DENIED)
            assert found.value.sqlstate == "42501"
            connection.rollback()
            alchemy.rollback()
    with pytest.raises(PermissionDenied):
        await greet.submit_async("a")
    with pytest.raises(PermissionDenied):
        await app.queue("mail").set_async(limit=3)
    producer = JobQ(login("producer"))
    with pytest.raises(PermissionDenied):
        producer.queue("mail").set(limit=3)
    producer.close()
    ref = greet.ref(1)
    app.configure(database_url=login(None))
    with pytest.raises(PermissionDenied):
        ref.status()
    found_cli = CliRunner().invoke(
        main, ["queues", "set", "mail", "--limit", "3"], env={"JOBQ_DATABASE_URL": url, "JOBQ_ACTOR": "ann"}
    )
    assert found_cli.exit_code == 78, found_cli.output
    assert "deploy/roles.sql" in found_cli.output
    await app.aclose()


def test_missing_tables_are_an_error_of_ours(empty_database_url: str) -> None:
    app = JobQ(empty_database_url)

    @app.task
    def greet() -> None: ...

    with psycopg.connect(empty_database_url) as connection:
        for call in (
            lambda: greet.enqueue(connection),
            lambda: greet.submit(),
            lambda: greet.ref(1).status(),
            lambda: app.queue("mail").set(limit=3, connection=connection),
            lambda: app.queue("mail").pause(),
            lambda: app.add_schedule(greet, every=timedelta(hours=1), name="s", actor="ann"),
            lambda: operations.retry(connection, "jobq", [1], actor="ann"),
            lambda: queries.get_job(connection, "jobq", 1),
        ):
            with pytest.raises(SchemaError, match="run `jobq migrate`"):
                call()
            connection.rollback()
    app.close()
