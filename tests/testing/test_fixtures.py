"""The fixtures keep what they promise: the other tests rest on them."""

from __future__ import annotations

from typing import Any

import psycopg

from jobq import migrate
from tests.support.servers.postgres import OwnServer


def test_database_url_is_migrated(database_url: str) -> None:
    migrate.check(database_url)


def test_empty_database_has_no_schema(empty_database_url: str) -> None:
    assert migrate.current(empty_database_url) is None


def test_databases_are_separate(database_url: str, empty_database_url: str, conn: psycopg.Connection[Any]) -> None:
    assert database_url != empty_database_url
    assert conn.info.dbname in database_url
    assert conn.execute("SELECT count(*) FROM jobq.job").fetchone() == (0,)


def test_own_server_keeps_commits_over_a_crash(own_server: OwnServer) -> None:
    with psycopg.connect(own_server.url) as connection:
        connection.execute("CREATE TABLE kept AS SELECT 1 AS n")
    for _ in range(3):
        own_server.kill()
        own_server.restart()
    own_server.restart()
    with psycopg.connect(own_server.url) as connection:
        assert connection.execute("SELECT n FROM kept").fetchone() == (1,)
