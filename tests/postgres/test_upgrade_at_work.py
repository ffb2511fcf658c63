"""Migrations while applications are at work: no call fails, what users have built stays, and what blocks is named.

From this revision to those of a next version, in which tables change and functions grow: tests.support.installed.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import psycopg
import pytest

from jobq import JobQ, migrate
from jobq._postgres import blockers, migrating
from jobq._postgres.blockers import Blocker
from jobq.errors import MigrationRefused, MigrationTimeout
from tests.support.servers import postgres
from tests.support.waiting import wait_until

Conn = psycopg.Connection[Any]
NOW, NEXT = "0009", ["0010", "0011"]

pytestmark = pytest.mark.usefixtures("next_migrations")


@pytest.fixture
def connection(database_url: str) -> Iterator[Conn]:
    """A connection to a database at this revision."""
    with psycopg.connect(database_url, autocommit=True) as connection:
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
def test_no_call_fails_while_the_schema_is_migrated(connection: Conn, database_url: str, prepared: bool) -> None:
    stop = threading.Event()
    errors: list[str] = []
    made = [0] * 4

    def produce(n: int) -> None:
        with psycopg.connect(database_url, autocommit=True, prepare_threshold=0 if prepared else None) as connection:
            while not stop.is_set():
                try:
                    connection.execute(CALLS[n].encode())
                    made[n] += 1
                except psycopg.Error as error:
                    errors.append(f"{error.sqlstate} {error}")

    def more_calls() -> None:
        before = sum(made)
        wait_until(lambda: sum(made) > before + 40, what="more calls")

    threads = [threading.Thread(target=produce, args=(n,)) for n in range(len(CALLS))]
    for thread in threads:
        thread.start()
    try:
        for _ in range(3):
            more_calls()
            assert migrate.upgrade(database_url)
            more_calls()
            assert errors == []
            stop.set()
            for thread in threads:
                thread.join()
            migrate.downgrade(database_url, NOW)
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


def test_what_users_have_built_upon_enqueue_stays(connection: Conn, database_url: str) -> None:
    connection.execute(
        "CREATE FUNCTION mail(n integer) RETURNS bigint LANGUAGE sql"
        " BEGIN ATOMIC SELECT jobq.enqueue('mail', jsonb_build_object('n', n), key => 'k' || n); END"
    )
    connection.execute("CREATE VIEW mailing AS SELECT jobq.enqueue('mail', '{\"n\": 7}') AS id")
    migrate.upgrade(database_url)
    [(first,)] = connection.execute("SELECT mail(1)").fetchall()
    assert connection.execute("SELECT mail(1)").fetchone() == (first,)
    assert connection.execute("SELECT id > 0 FROM mailing").fetchone() == (True,)
    # They have done what the present function does.
    q = JobQ(database_url)

    @q.task(name="mail")
    def mail(n: int) -> None: ...

    assert mail.options(key="k1").enqueue(connection, 1).id == first
    # And back again.
    connection.execute("DELETE FROM jobq.job; DELETE FROM jobq.job_key")
    migrate.downgrade(database_url, NOW)
    assert connection.execute("SELECT mail(3) IS NOT NULL").fetchone() == (True,)


def test_who_could_call_enqueue_still_can_and_no_others(connection: Conn, database_url: str) -> None:
    role = "producer_" + database_url.rsplit("_", 1)[1]
    connection.execute(f"CREATE ROLE {role}".encode())
    try:
        connection.execute(f"GRANT USAGE ON SCHEMA jobq TO {role}".encode())
        connection.execute("REVOKE ALL ON ALL FUNCTIONS IN SCHEMA jobq FROM PUBLIC")
        connection.execute(f"GRANT EXECUTE ON FUNCTION jobq.enqueue TO {role}".encode())
        migrate.upgrade(database_url)
        connection.execute(f"SET ROLE {role}".encode())
        assert connection.execute("SELECT jobq.enqueue('mail') > 0").fetchone() == (True,)
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            connection.execute(CALLS[2].encode())
        connection.execute("RESET ROLE")
    finally:
        connection.execute(f"DROP OWNED BY {role}; DROP ROLE {role}".encode())


def test_a_key_has_one_job_while_the_schema_is_migrated(connection: Conn, database_url: str) -> None:
    """Calls that wait for the tables go on with the former function; and transactions that commit after it all."""
    calls = [
        "SELECT jobq.enqueue('mail', key => 'one', key_holds => 'until_finished')",
        CALLS[3].replace("gen_random_uuid()::text", "'one'").replace("'period'", "'until_finished'"),
    ]
    stop = threading.Event()
    errors: list[str] = []
    made = [0] * 4

    def produce(n: int) -> None:
        with psycopg.connect(database_url, autocommit=True) as connection:
            while not stop.is_set():
                try:
                    connection.execute(calls[n % 2].encode())
                    made[n] += 1
                except psycopg.Error as error:
                    errors.append(f"{error.sqlstate} {error}")

    for _ in range(3):
        stop.clear()
        threads = [threading.Thread(target=produce, args=(n,)) for n in range(len(made))]
        for thread in threads:
            thread.start()
        try:
            before = sum(made)
            wait_until(lambda before=before: sum(made) > before + 20, what="calls")  # type: ignore[misc]
            connection.execute("DELETE FROM jobq.job; DELETE FROM jobq.job_key")
            migrate.upgrade(database_url)
        finally:
            stop.set()
            for thread in threads:
                thread.join()
        assert errors == []
        # The two deletes above are two statements: a call between them finds its key held by a job that is gone.
        assert connection.execute("SELECT count(*) <= 1 FROM jobq.job").fetchone() == (True,)
        held = connection.execute("SELECT key, scope FROM jobq.job_key").fetchall()
        assert held == [("one", "mail")] or connection.execute("SELECT FROM jobq.job").fetchall() == []
        connection.execute("DELETE FROM jobq.job; DELETE FROM jobq.job_key")
        migrate.downgrade(database_url, NOW)


def test_owner_rights_and_comments_go_to_the_function_that_takes_the_name(connection: Conn, database_url: str) -> None:
    name = database_url.rsplit("_", 1)[1]
    owner, may = f"owner_{name}", f"may_{name}"
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
            "SELECT proowner::regrole::text, obj_description(oid, 'pg_proc'), "
            "ARRAY(SELECT acl::text FROM unnest(proacl) AS acl ORDER BY 1) FROM pg_proc "
            "WHERE pronamespace = 'jobq'::regnamespace AND proname = 'enqueue'"
        )
        before = connection.execute(query).fetchall()
        migrate.upgrade(database_url)
        assert connection.execute(query).fetchall() == before
        migrate.downgrade(database_url, NOW)
        assert connection.execute(query).fetchall() == before
    finally:
        connection.execute(f"REASSIGN OWNED BY {owner} TO CURRENT_USER".encode())
        connection.execute(f"DROP OWNED BY {owner}, {may}; DROP ROLE {owner}, {may}".encode())


def test_what_depends_on_what_must_go_is_named(connection: Conn, database_url: str) -> None:
    connection.execute("CREATE VIEW entered AS SELECT jobq.entry_state('mail', 'g') AS state")
    with pytest.raises(
        MigrationRefused, match=r"view entered depends on function.*entry_state.*at revision 0009: drop"
    ) as refused:
        migrate.upgrade(database_url)
    assert "traceback" not in str(refused.value)
    assert migrate.current(database_url) == NOW
    connection.execute("DROP VIEW entered")
    assert migrate.upgrade(database_url) == NEXT


def test_a_function_that_has_not_changed_is_left_alone_and_one_replaced_by_hand_is_not(
    connection: Conn, database_url: str
) -> None:
    """Told by the row versions of the catalogue."""
    rows = "SELECT proname::text, xmin::text FROM pg_proc WHERE pronamespace = 'jobq'::regnamespace AND proname !~ '_[0-9]{4}$'"
    connection.execute(
        "CREATE OR REPLACE FUNCTION jobq.admits_from(jobs integer, seconds double precision, burst integer, paid timestamptz)"
        " RETURNS timestamptz LANGUAGE sql IMMUTABLE AS 'SELECT NULL::timestamptz'"
    )
    # As an editor would, which shows the function as the server has it.
    [(text,)] = connection.execute("SELECT pg_get_functiondef('jobq.admits'::regproc)").fetchall()
    connection.execute(text.replace("THEN burst", "THEN 0").encode())
    before = dict(connection.execute(rows).fetchall())
    migrate.upgrade(database_url)
    after = dict(connection.execute(rows).fetchall())
    assert {name for name in after if after[name] != before[name]} == {
        "admits", "admits_from", "enqueue", "enqueue_keyed", "enqueue_one", "entry_state", "oldest_program",
    }  # fmt: skip
    assert connection.execute("SELECT jobq.admits_from(1, 1, 1, now()) IS NOT NULL").fetchone() == (True,)
    assert connection.execute("SELECT jobq.admits(1, 1, 3, now(), now())").fetchone() == (3,)


def _hold(connection: Conn) -> None:
    connection.execute("BEGIN; SELECT FROM jobq.queue FOR UPDATE")


def _prepare(connection: Conn) -> None:
    connection.execute("BEGIN; INSERT INTO jobq.queue (name) VALUES ('prepared'); PREPARE TRANSACTION 'theirs'")


@pytest.mark.parametrize(("hold", "named"), [(_hold, "process"), (_prepare, "prepared transaction 'theirs'")])
def test_who_holds_a_lock_is_named_and_nothing_is_changed(
    connection: Conn, database_url: str, hold: Callable[[Conn], None], named: str
) -> None:
    with psycopg.connect(database_url, autocommit=True) as holder:
        holder.execute("SET application_name = 'nightly report'")
        hold(holder)
        waits: list[list[Blocker]] = []
        try:
            with pytest.raises(MigrationTimeout, match=f"{named}.*has held.*queue.*End what holds them") as refused:
                migrate.upgrade(database_url, patience=1.5, on_wait=waits.append)
            assert len({(one.pid, one.gid) for one in waits[-1]}) == len(waits[-1]) == 1
            if named == "process":
                assert "nightly report" in str(refused.value)
                assert f"pg_terminate_backend({holder.info.backend_pid})" in str(refused.value)
            assert any(waits)
            assert migrate.current(database_url) == NOW
            # Others were never held up for long, and the application's transaction goes on.
            connection.execute("SELECT jobq.enqueue('mail')")
        finally:
            holder.execute("ROLLBACK PREPARED 'theirs'" if named != "process" else "COMMIT")
        assert migrate.upgrade(database_url) == NEXT


def test_it_is_the_migration_that_gives_way_to_a_transaction_that_wants_more_locks(
    connection: Conn, database_url: str
) -> None:
    """The order of locks that would be a deadlock: the transaction has a late table and wants an early one."""
    with psycopg.connect(database_url) as application:
        application.execute("SELECT FROM jobq.worker")
        waits: list[list[Blocker]] = []
        done: list[list[str]] = []
        migration = threading.Thread(target=lambda: done.append(migrate.upgrade(database_url, on_wait=waits.append)))
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
        assert done == [NEXT]
        assert connection.execute("SELECT count(*) FROM jobq.job").fetchone() == (1,)


@pytest.mark.own_server
def test_an_autovacuum_that_has_the_table_is_ended() -> None:
    """Migrations wait for a moment only, and so long no autovacuum gives way: something else has to wait for it."""
    slow = "-c autovacuum_naptime=1s -c autovacuum_vacuum_cost_delay=100ms -c autovacuum_vacuum_cost_limit=1"
    server = postgres.start(f"-h 127.0.0.1 -F -c max_connections=20 -c deadlock_timeout=100ms {slow}")
    try:
        url = server.database_url("test")
        migrate.upgrade(url)
        with psycopg.connect(url, autocommit=True) as admin, migrating.connect(url) as connection:
            admin.execute("ALTER TABLE jobq.job SET (autovacuum_vacuum_threshold = 1, autovacuum_enabled = on)")
            admin.execute("INSERT INTO jobq.job (task) SELECT 't' FROM generate_series(1, 20000)")
            admin.execute("DELETE FROM jobq.job WHERE id % 2 = 0")

            def vacuums() -> list[Blocker]:
                found = blockers.find(connection, "jobq", older_than=0.0)
                return [one for one in found if one.backend == "autovacuum worker" and "job" in one.tables]

            vacuum, *others = wait_until(vacuums, timeout=60, what="an autovacuum of the table")
            assert others == []
            assert "(autovacuum worker) has held" in str(vacuum)
            holds = "SELECT count(*) FROM pg_locks WHERE pid = %s AND relation = 'jobq.job'::regclass AND granted"
            # Of sessions it ends none, and without an autovacuum it does nothing.
            blockers.cancel_autovacuum(connection, "jobq", [replace(vacuum, backend=None)], wait=60)
            assert admin.execute(holds, (vacuum.pid,)).fetchone() == (1,)
            blockers.cancel_autovacuum(connection, "jobq", [vacuum], wait=60)
            assert admin.execute(holds, (vacuum.pid,)).fetchone() == (0,)
            # It has kept no lock of its own.
            admin.execute("SET lock_timeout = '10s'")
            admin.execute("ALTER TABLE jobq.job ADD COLUMN passing integer")
    finally:
        server.stop()
