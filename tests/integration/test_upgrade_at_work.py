"""Migrations while applications are at work: no call fails, what users have built stays, and what blocks is named."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import psycopg
import pytest

from jobq import JobQ, migrate
from jobq.blockers import Blocker
from jobq.errors import MigrationRefused, MigrationTimeout
from tests.support.waiting import wait_until

Conn = psycopg.Connection[Any]
FIRST = "0002"  # the first with functions that have grown since


@contextmanager
def at_revision(url: str, revision: str) -> Iterator[Conn]:
    """A connection to a database that was made at `revision`, by today's files."""
    migrate.upgrade(url)
    migrate.downgrade(url, revision)
    with psycopg.connect(url, autocommit=True) as connection:
        yield connection


# As jobq's own statements say it, and others' may. Not SELECT *: its columns grow.
CALLS = [
    "SELECT jobq.enqueue('mail', '{\"n\": 1}')",
    "SELECT jobq.enqueue('mail', args => '{\"n\": 2}', key => gen_random_uuid()::text)",
    "SELECT job_id, created FROM jobq.enqueue_one('mail', '{}', 'default', 5, NULL, NULL, 10, NULL, '{}', "
    "gen_random_uuid()::text, 'period', 60, 'return')",
    "SELECT job_id, created FROM jobq.enqueue_keyed(ARRAY['mail'], ARRAY['{}'], ARRAY['default'], ARRAY[5], "
    "ARRAY[NULL::timestamptz], ARRAY[NULL::float8], ARRAY[10], ARRAY[NULL::float8], ARRAY['{}'], "
    "ARRAY[gen_random_uuid()::text], ARRAY['period'], ARRAY[60.0::float8], ARRAY['return'])",
]


@pytest.mark.parametrize("prepared", [False, True])
def test_no_call_fails_while_the_schema_is_migrated(empty_database_url: str, prepared: bool) -> None:
    stop = threading.Event()
    errors: list[str] = []
    made = [0] * 4

    def produce(n: int) -> None:
        with psycopg.connect(
            empty_database_url, autocommit=True, prepare_threshold=0 if prepared else None
        ) as connection:
            while not stop.is_set():
                try:
                    connection.execute(CALLS[n].encode())
                    made[n] += 1
                except psycopg.Error as error:
                    errors.append(f"{error.sqlstate} {error}")

    def more_calls() -> None:
        before = sum(made)
        wait_until(lambda: sum(made) > before + 40, what="more calls")

    with at_revision(empty_database_url, FIRST) as connection:
        threads = [threading.Thread(target=produce, args=(n,)) for n in range(len(CALLS))]
        for thread in threads:
            thread.start()
        try:
            for _ in range(3):
                more_calls()
                assert migrate.upgrade(empty_database_url)
                more_calls()
                assert errors == []
                stop.set()
                for thread in threads:
                    thread.join()
                migrate.downgrade(empty_database_url, FIRST)
                stop.clear()
                threads = [threading.Thread(target=produce, args=(n,)) for n in range(len(CALLS))]
                for thread in threads:
                    thread.start()
        finally:
            stop.set()
            for thread in threads:
                thread.join()
        assert errors == []
        assert connection.execute("SELECT count(*) FROM jobq.job").fetchone() == (sum(made),)


@pytest.mark.parametrize("revision", ["0001", "0002", "0004", "0005", "0006"])
def test_what_users_have_built_upon_enqueue_stays(empty_database_url: str, revision: str) -> None:
    with at_revision(empty_database_url, revision) as connection:
        connection.execute(
            "CREATE FUNCTION mail(n integer) RETURNS bigint LANGUAGE sql"
            " BEGIN ATOMIC SELECT jobq.enqueue('mail', jsonb_build_object('n', n), key => 'k' || n); END"
        )
        connection.execute("CREATE VIEW mailing AS SELECT jobq.enqueue('mail', '{\"n\": 7}') AS id")
        migrate.upgrade(empty_database_url)
        [(first,)] = connection.execute("SELECT mail(1)").fetchall()
        assert connection.execute("SELECT mail(1)").fetchone() == (first,)
        assert connection.execute("SELECT id > 0 FROM mailing").fetchone() == (True,)
        # They have done what the present function does.
        q = JobQ(empty_database_url)

        @q.task(name="mail")
        def mail(n: int) -> None: ...

        assert mail.options(key="k1").enqueue(connection, 1).id == first
        # And back again.
        connection.execute("DELETE FROM jobq.job; DELETE FROM jobq.job_key")
        migrate.downgrade(empty_database_url, revision)
        assert connection.execute("SELECT mail(3) IS NOT NULL").fetchone() == (True,)


def test_who_could_call_enqueue_still_can_and_no_others(empty_database_url: str) -> None:
    with at_revision(empty_database_url, FIRST) as connection:
        role = "producer_" + empty_database_url.rsplit("_", 1)[1]
        connection.execute(f"CREATE ROLE {role}".encode())
        try:
            connection.execute(f"GRANT USAGE ON SCHEMA jobq TO {role}".encode())
            connection.execute("REVOKE ALL ON ALL FUNCTIONS IN SCHEMA jobq FROM PUBLIC")
            connection.execute(f"GRANT EXECUTE ON FUNCTION jobq.enqueue TO {role}".encode())
            migrate.upgrade(empty_database_url)
            connection.execute(f"SET ROLE {role}".encode())
            assert connection.execute("SELECT jobq.enqueue('mail') > 0").fetchone() == (True,)
            with pytest.raises(psycopg.errors.InsufficientPrivilege):
                connection.execute(CALLS[2].encode())
            connection.execute("RESET ROLE")
        finally:
            connection.execute(f"DROP OWNED BY {role}; DROP ROLE {role}".encode())


@pytest.mark.parametrize("revision", ["0002", "0005"])
def test_a_key_has_one_job_while_the_schema_is_migrated(empty_database_url: str, revision: str) -> None:
    """Calls that wait for the tables go on with the former function; and transactions that commit after it all."""
    calls = [
        "SELECT jobq.enqueue('mail', key => 'one', key_holds => 'until_finished')",
        CALLS[3].replace("gen_random_uuid()::text", "'one'").replace("'period'", "'until_finished'"),
    ]
    stop = threading.Event()
    errors: list[str] = []
    made = [0] * 4

    def produce(n: int) -> None:
        with psycopg.connect(empty_database_url, autocommit=True) as connection:
            while not stop.is_set():
                try:
                    connection.execute(calls[n % 2].encode())
                    made[n] += 1
                except psycopg.Error as error:
                    errors.append(f"{error.sqlstate} {error}")

    with at_revision(empty_database_url, revision) as connection:
        for _ in range(3):
            stop.clear()
            threads = [threading.Thread(target=produce, args=(n,)) for n in range(len(made))]
            for thread in threads:
                thread.start()
            try:
                before = sum(made)
                wait_until(lambda before=before: sum(made) > before + 20, what="calls")  # type: ignore[misc]
                connection.execute("DELETE FROM jobq.job; DELETE FROM jobq.job_key")
                migrate.upgrade(empty_database_url)
            finally:
                stop.set()
                for thread in threads:
                    thread.join()
            assert errors == []
            # The two deletes above are two statements: a call between them finds its key held by a job that is gone.
            assert connection.execute("SELECT count(*) <= 1 FROM jobq.job").fetchone() == (True,)
            held = connection.execute("SELECT key, scope FROM jobq.job_key").fetchall()
            assert held == [("one", "mail")] or connection.execute("SELECT FROM jobq.job").fetchall() == []
            assert connection.execute("SELECT FROM pg_trigger WHERE tgname = 'job_key_keep'").fetchall() == []
            connection.execute("DELETE FROM jobq.job; DELETE FROM jobq.job_key")
            migrate.downgrade(empty_database_url, revision)


def test_owner_rights_and_comments_go_to_the_function_that_takes_the_name(
    empty_database_url: str,
) -> None:
    name = empty_database_url.rsplit("_", 1)[1]
    owner, may = f"owner_{name}", f"may_{name}"
    with at_revision(empty_database_url, FIRST) as connection:
        connection.execute(f"CREATE ROLE {owner}; CREATE ROLE {may}".encode())
        try:
            connection.execute(
                f"GRANT USAGE, CREATE ON SCHEMA jobq TO {owner}; GRANT USAGE ON SCHEMA jobq TO {may}".encode()
            )
            connection.execute(f"GRANT ALL ON ALL TABLES IN SCHEMA jobq TO {owner}".encode())
            connection.execute(f"GRANT ALL ON ALL SEQUENCES IN SCHEMA jobq TO {owner}".encode())
            connection.execute("ALTER DEFAULT PRIVILEGES IN SCHEMA jobq REVOKE EXECUTE ON FUNCTIONS FROM PUBLIC")
            connection.execute(f"ALTER FUNCTION jobq.enqueue OWNER TO {owner}".encode())
            connection.execute(f"GRANT EXECUTE ON FUNCTION jobq.enqueue TO {may} WITH GRANT OPTION".encode())
            connection.execute("COMMENT ON FUNCTION jobq.enqueue IS 'ours'")
            query = (
                "SELECT proowner::regrole::text, obj_description(oid, 'pg_proc'), proacl::text FROM pg_proc "
                "WHERE pronamespace = 'jobq'::regnamespace AND proname = 'enqueue'"
            )
            before = connection.execute(query).fetchall()
            migrate.upgrade(empty_database_url)
            assert connection.execute(query).fetchall() == before
            migrate.downgrade(empty_database_url, FIRST)
            assert connection.execute(query).fetchall() == before
        finally:
            connection.execute(f"REASSIGN OWNED BY {owner} TO CURRENT_USER".encode())
            connection.execute(f"DROP OWNED BY {owner}, {may}; DROP ROLE {owner}, {may}".encode())


def test_what_depends_on_what_must_go_is_named(empty_database_url: str) -> None:
    with at_revision(empty_database_url, "0005") as connection:
        connection.execute("CREATE TABLE seen (key text REFERENCES jobq.job_key)")
        with pytest.raises(
            MigrationRefused, match=r"constraint seen_key_fkey on table seen depends on.*at revision 0005: drop"
        ) as refused:
            migrate.upgrade(empty_database_url)
        assert "traceback" not in str(refused.value)
        assert migrate.current(empty_database_url) == "0005"
        connection.execute("DROP TABLE seen")
        assert migrate.upgrade(empty_database_url) == ["0006", "0007", "0008"]


def _hold(connection: Conn) -> None:
    connection.execute("BEGIN; SELECT FROM jobq.queue FOR UPDATE")


def _prepare(connection: Conn) -> None:
    connection.execute("BEGIN; INSERT INTO jobq.queue (name) VALUES ('prepared'); PREPARE TRANSACTION 'theirs'")


@pytest.mark.parametrize(("hold", "named"), [(_hold, "process"), (_prepare, "prepared transaction 'theirs'")])
def test_who_holds_a_lock_is_named_and_nothing_is_changed(
    empty_database_url: str, hold: Callable[[Conn], None], named: str
) -> None:
    with (
        at_revision(empty_database_url, "0005") as connection,
        psycopg.connect(empty_database_url, autocommit=True) as holder,
    ):
        holder.execute("SET application_name = 'nightly report'")
        hold(holder)
        waits: list[list[Blocker]] = []
        try:
            with pytest.raises(MigrationTimeout, match=f"{named}.*has held.*queue.*End what holds them") as refused:
                migrate.upgrade(empty_database_url, patience=1.5, on_wait=waits.append)
            assert len({(one.pid, one.gid) for one in waits[-1]}) == len(waits[-1]) == 1
            if named == "process":
                assert "nightly report" in str(refused.value)
                assert f"pg_terminate_backend({holder.info.backend_pid})" in str(refused.value)
            assert any(waits)
            assert migrate.current(empty_database_url) == "0005"
            # Others were never held up for long, and the application's transaction goes on.
            connection.execute("SELECT jobq.enqueue('mail')")
        finally:
            holder.execute("ROLLBACK PREPARED 'theirs'" if named != "process" else "COMMIT")
        assert migrate.upgrade(empty_database_url) == ["0006", "0007", "0008"]


def test_it_is_the_migration_that_gives_way_to_a_transaction_that_wants_more_locks(empty_database_url: str) -> None:
    """The order of locks that would be a deadlock: the transaction has a late table and wants an early one."""
    with at_revision(empty_database_url, "0005") as connection, psycopg.connect(empty_database_url) as application:
        application.execute("SELECT FROM jobq.worker")
        waits: list[list[Blocker]] = []
        done: list[list[str]] = []
        migration = threading.Thread(
            target=lambda: done.append(migrate.upgrade(empty_database_url, on_wait=waits.append))
        )
        migration.start()
        wait_until(lambda: bool(waits), what="a try of the migration")
        waiting = (
            "SELECT count(*) FROM pg_locks WHERE NOT granted AND locktype = 'relation' "
            "AND database = (SELECT oid FROM pg_database WHERE datname = current_database())"
        )
        wait_until(lambda: connection.execute(waiting.encode()).fetchone() != (0,), what="the next try")
        application.execute("SELECT jobq.enqueue('mail')")
        application.commit()
        migration.join()
        assert done == [["0006", "0007", "0008"]]
        assert connection.execute("SELECT count(*) FROM jobq.job").fetchone() == (1,)
