"""Migrations: they give what `jobq._postgres.tables` says, in any schema, by any number at once, and take it away again."""

from __future__ import annotations

import multiprocessing
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import psycopg
import pytest
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext
from psycopg import sql
from psycopg.types.json import Jsonb
from sqlalchemy import Connection, create_engine, pool
from sqlalchemy.exc import OperationalError

from jobq import migrate
from jobq._postgres import tables
from jobq._postgres.sql import REVISION
from jobq.errors import ConfigurationError, DatabaseUnavailable, SchemaError
from jobq.settings import Settings
from tests.support.checks import some
from tests.support.servers.catalogue import catalogue
from tests.support.servers.postgres import Server

EVERY = ["0009"]
SCHEMAS = ["jobq", "other_jobs", "Select", "x" * 48]


@contextmanager
def alchemy(url: str) -> Iterator[Connection]:
    engine = create_engine(url.replace("postgresql:", "postgresql+psycopg:"), poolclass=pool.NullPool)
    with engine.connect() as connection:
        yield connection


def drift(url: str, name: str) -> list[Any]:
    """Return what alembic would change in schema `name` to make it what the metadata say."""
    known = tables.metadata(name).tables

    def include_name(candidate: str | None, kind: str, parents: Any) -> bool:
        if kind == "schema":
            return candidate == name
        # Of the tables only the parts are left out, so that a table too many is found as well.
        return kind != "table" or f"{name}.{candidate}" in known or candidate not in parts

    with alchemy(url) as connection:
        parts = set(
            connection.exec_driver_sql(
                "SELECT relname FROM pg_class WHERE relispartition AND relnamespace = %s::regnamespace", (f'"{name}"',)
            ).scalars()
        )
        context = MigrationContext.configure(
            connection,
            opts={
                "include_schemas": True,
                "include_name": include_name,
                "compare_type": True,
                "compare_server_default": True,
                "version_table": migrate.VERSION_TABLE,
                "version_table_schema": name,
            },
        )
        found: list[Any] = compare_metadata(context, tables.metadata(name))
    return found


def relations(url: str, name: str = "jobq") -> set[str]:
    with psycopg.connect(url) as connection:
        rows = connection.execute(
            "SELECT relname FROM pg_class WHERE relnamespace = to_regnamespace(%(name)s) AND relkind <> 'i' UNION ALL "
            "SELECT proname FROM pg_proc WHERE pronamespace = to_regnamespace(%(name)s)",
            {"name": f'"{name}"'},
        ).fetchall()
    return {row[0] for row in rows}


# --- What a migrated database is ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", SCHEMAS)
def test_no_drift_between_metadata_and_migrated_database(empty_database_url: str, name: str) -> None:
    migrate.upgrade(empty_database_url, name)
    assert drift(empty_database_url, name) == []


def test_drift_is_seen_when_there_is_some(database_url: str) -> None:
    with psycopg.connect(database_url) as connection:
        connection.execute("ALTER TABLE jobq.job ALTER COLUMN priority SET DEFAULT 6")
        connection.execute("ALTER TABLE jobq.queue ALTER COLUMN name TYPE varchar(10)")
        connection.execute("DROP INDEX jobq.job_running_idx")
        connection.execute("CREATE TABLE jobq.surplus (n integer)")
    assert len(drift(database_url, "jobq")) == 4


def test_storage_parameters_are_the_metadata_s(database_url: str) -> None:
    with psycopg.connect(database_url) as connection:
        rows = connection.execute(
            "SELECT relname, coalesce(reloptions, '{}') FROM pg_class "
            "WHERE relnamespace = 'jobq'::regnamespace AND relkind IN ('r', 'p') AND NOT relispartition"
        ).fetchall()
    found = {name: dict(option.split("=") for option in options) for name, options in rows}
    found.pop(migrate.VERSION_TABLE)
    wanted = {t.name: dict(t.dialect_options["postgresql"]["with"] or {}) for t in tables.metadata().tables.values()}
    assert found == wanted


def test_the_mode_s_sequence_is_the_metadata_s(database_url: str) -> None:
    with psycopg.connect(database_url) as connection:
        found = connection.execute(
            "SELECT data_type::text, start_value, min_value, max_value, cache_size, last_value FROM pg_sequences "
            "WHERE schemaname = 'jobq' AND sequencename = 'notify_mode'"
        ).fetchone()
    (wake,) = tables.metadata()._sequences.values()
    assert (wake.name, found) == (
        "notify_mode",
        ("smallint", wake.start, wake.minvalue, wake.maxvalue, wake.cache, None),
    )


def test_check_constraints_are_the_metadata_s(database_url: str) -> None:
    """Compared as Postgres prints them: the metadata's, created in a schema of their own, beside the migrated ones."""
    with alchemy(database_url) as connection:
        connection.exec_driver_sql("CREATE SCHEMA compared")
        tables.metadata("compared").create_all(connection)
        connection.commit()
    with psycopg.connect(database_url) as connection:
        query = (
            "SELECT conrelid::regclass::text, conname, pg_get_constraintdef(pg_constraint.oid) FROM pg_constraint "
            "JOIN pg_class ON pg_class.oid = conrelid WHERE connamespace = %s::regnamespace AND contype IN ('c', 'p') "
            "AND NOT relispartition AND relname <> 'schema_version' ORDER BY 1, 2"
        )
        sides = [
            [(table.split(".")[1], *rest) for table, *rest in connection.execute(query, (name,)).fetchall()]
            for name in ("jobq", "compared")
        ]
    assert sides[0] == sides[1]


def test_a_key_column_may_hold_500_characters(conn: psycopg.Connection[Any]) -> None:
    insert = "INSERT INTO jobq.job_key (job_id, key, holds) VALUES (1, %s, 'until_finished')"
    conn.execute(insert, ("\N{PILE OF POO}" * 500,))
    with pytest.raises(psycopg.errors.CheckViolation):
        conn.execute(insert, ("k" * 501,))


# --- Up and down -------------------------------------------------------------------------------------------------------


def test_upgrade_is_idempotent(empty_database_url: str) -> None:
    assert migrate.current(empty_database_url) is None
    pending = migrate.pending(empty_database_url)
    assert pending
    assert all(step.title for step in pending)
    assert migrate.upgrade(empty_database_url) == [step.id for step in pending]
    before = catalogue(empty_database_url)
    assert migrate.upgrade(empty_database_url) == []
    assert migrate.pending(empty_database_url) == []
    assert migrate.current(empty_database_url) == migrate.head() == pending[-1].id
    assert catalogue(empty_database_url) == before


def _upgrade(url: str, name: str, barrier: Any, results: Any) -> None:
    barrier.wait(60)
    results.put(migrate.upgrade(url, name))


def upgrade_at_once(url: str, names: list[str]) -> list[list[str]]:
    """Upgrade each of the schemas in a process of its own, all at once; return what each did."""
    processes = multiprocessing.get_context("spawn")
    barrier, results = processes.Barrier(len(names)), processes.Queue()
    started = [processes.Process(target=_upgrade, args=(url, name, barrier, results)) for name in names]
    for process in started:
        process.start()
    done = [results.get(timeout=90) for _ in started]
    for process in started:
        process.join(30)
        assert process.exitcode == 0
    return done


def test_four_upgrades_at_once(empty_database_url: str) -> None:
    done = upgrade_at_once(empty_database_url, ["jobq"] * 4)
    # One did the work, three found it done.
    assert sorted(map(len, done))[:3] == [0, 0, 0]
    assert max(done, key=len)[-1] == migrate.head()
    migrate.check(empty_database_url)


def test_upgrades_of_two_schemas_at_once(empty_database_url: str) -> None:
    names = ["jobq", "other_jobs"]
    assert upgrade_at_once(empty_database_url, names) == [EVERY] * 2
    for name in names:
        migrate.check(empty_database_url, name)


def test_downgrade_to_base_leaves_nothing(empty_database_url: str) -> None:
    migrate.upgrade(empty_database_url)
    with psycopg.connect(empty_database_url, autocommit=True) as connection:
        connection.execute("INSERT INTO jobq.job (task) VALUES ('t')")
        before = connection.execute(_EVERYTHING).fetchall()
        assert migrate.downgrade(empty_database_url, "base") == []
        left = connection.execute(_EVERYTHING).fetchall()
        assert before
        assert left == []
    assert migrate.current(empty_database_url) is None
    assert migrate.upgrade(empty_database_url)
    assert drift(empty_database_url, "jobq") == []


_EVERYTHING = """
    SELECT 'schema', nspname::text FROM pg_namespace WHERE nspname = 'jobq'
    UNION ALL SELECT 'relation', relname::text FROM pg_class WHERE relnamespace = to_regnamespace('jobq')
    UNION ALL SELECT 'function', proname::text FROM pg_proc WHERE pronamespace = to_regnamespace('jobq')
    UNION ALL SELECT 'type', typname::text FROM pg_type WHERE typnamespace = to_regnamespace('jobq')
    UNION ALL SELECT 'event trigger', evtname::text FROM pg_event_trigger
    UNION ALL SELECT 'public', relname::text FROM pg_class WHERE relnamespace = 'public'::regnamespace
"""


def test_downgrade_to_base_leaves_what_is_not_ours(empty_database_url: str) -> None:
    migrate.upgrade(empty_database_url)
    migrate.upgrade(empty_database_url, "public")
    with psycopg.connect(empty_database_url, autocommit=True) as connection:
        connection.execute("CREATE TABLE jobq.of_somebody (n integer)")
        connection.execute("CREATE FUNCTION jobq.mine() RETURNS integer LANGUAGE sql AS 'SELECT 1'")
    assert migrate.downgrade(empty_database_url, "base") == ["function mine", "relation of_somebody"]
    assert relations(empty_database_url) == {"of_somebody", "mine"}
    assert migrate.downgrade(empty_database_url, "base", "public") == []
    assert relations(empty_database_url, "public") == set()
    with psycopg.connect(empty_database_url) as connection:
        assert connection.execute("SELECT to_regnamespace('public') IS NOT NULL").fetchone() == (True,)


def test_every_step_can_be_taken_back_alone(database_url: str, empty_database_url: str, next_migrations: Path) -> None:
    """On a database that has come by the steps, and on one that begins with today's functions."""
    before = catalogue(database_url)
    for url in (database_url, empty_database_url):
        migrate.upgrade(url)
        whole = catalogue(url)
        assert migrate.current(url) == "0011"
        for step in some(reversed(migrate._after("0009", "jobq"))):
            migrate.downgrade(url, "-1")
            assert step in migrate.pending(url)
        assert catalogue(url) == before
        migrate.upgrade(url)
        assert [row for row in catalogue(url) if "_0009(" not in row[1]] == [
            row for row in whole if "_0009(" not in row[1]
        ]


# --- Any schema --------------------------------------------------------------------------------------------------------


def test_two_schemas_are_alike_and_apart(empty_database_url: str) -> None:
    for name in SCHEMAS:
        migrate.upgrade(empty_database_url, name)
    first, *others = [catalogue(empty_database_url, name) for name in SCHEMAS]
    for other in some(others):
        assert [row[:2] for row in other] == [row[:2] for row in first]
    assert relations(empty_database_url, "public") == set()
    with psycopg.connect(empty_database_url) as connection:
        for number, name in enumerate(SCHEMAS, 1):
            enqueue = sql.SQL("SELECT {}.enqueue('t', '{{}}', key => 'k')").format(sql.Identifier(name))
            for _ in range(number):
                connection.execute(enqueue)
                connection.execute(sql.SQL("INSERT INTO {}.job (task) VALUES ('t')").format(sql.Identifier(name)))
        counts = [
            connection.execute(sql.SQL("SELECT count(*) FROM {}.job").format(sql.Identifier(name))).fetchone()
            for name in SCHEMAS
        ]
    assert counts == [(2,), (3,), (4,), (5,)]
    migrate.downgrade(empty_database_url, "base", "other_jobs")
    assert relations(empty_database_url, "other_jobs") == set()
    migrate.check(empty_database_url)


def test_a_schema_that_already_exists_is_used(empty_database_url: str) -> None:
    with psycopg.connect(empty_database_url) as connection:
        connection.execute("CREATE SCHEMA jobq; CREATE TABLE jobq.of_somebody (n integer)")
    migrate.upgrade(empty_database_url)
    assert "of_somebody" in relations(empty_database_url)


@pytest.mark.parametrize("name", ["", "1st", "a-b", 'a"b', "x" * 64, "with space"])
def test_schema_names_that_are_refused(name: str) -> None:
    with pytest.raises(ConfigurationError, match="schema="):
        Settings(schema=name)


# --- Offline -----------------------------------------------------------------------------------------------------------


def apply(url: str, script: str) -> None:
    """Run `script` as psql would with ON_ERROR_STOP."""
    import shutil

    from jobq.dev import bindir

    if psql := (shutil.which("psql", path=str(bindir())) or shutil.which("psql")):
        subprocess.run(
            [psql, "-X", "-q", "-v", "ON_ERROR_STOP=1", "-d", url],
            input=script,
            text=True,
            check=True,
            stdout=subprocess.DEVNULL,
        )
    else:
        with psycopg.connect(url, autocommit=True) as connection:
            connection.execute(script.encode())


@pytest.mark.parametrize("name", ["jobq", "other_jobs", "Select"])
def test_offline_sql_gives_the_same_schema(empty_database_url: str, server: Server, template: str, name: str) -> None:
    from tests.support.servers.postgres import database

    apply(empty_database_url, migrate.sql(name))
    migrate.check(empty_database_url, name)
    assert drift(empty_database_url, name) == []
    with database(server) as online:
        migrate.upgrade(online, name)
        assert catalogue(empty_database_url, name) == catalogue(online, name)
    # And online goes on from there.
    assert migrate.upgrade(empty_database_url, name) == []


def test_offline_sql_from_the_head_does_nothing(database_url: str) -> None:
    before = catalogue(database_url)
    apply(database_url, migrate.sql(start=migrate.head()))
    assert catalogue(database_url) == before


# --- What stands in the way --------------------------------------------------------------------------------------------


def test_a_schema_too_new(database_url: str) -> None:
    with psycopg.connect(database_url) as connection:
        connection.execute("UPDATE jobq.schema_version SET version_num = '9999'")
    for act in (migrate.check, migrate.upgrade, migrate.pending):
        with pytest.raises(SchemaError, match=r"9999.*newer jobq"):
            act(database_url)


def test_a_schema_too_old_or_missing(empty_database_url: str) -> None:
    with pytest.raises(SchemaError, match="run `jobq migrate`"):
        migrate.check(empty_database_url)
    migrate.upgrade(empty_database_url)
    migrate.check(empty_database_url)
    with psycopg.connect(empty_database_url) as connection:
        connection.execute("DELETE FROM jobq.schema_version")
    with pytest.raises(SchemaError, match="run `jobq migrate`"):
        migrate.check(empty_database_url)


def test_no_server() -> None:
    for act in (migrate.check, migrate.upgrade, migrate.current):
        with pytest.raises(DatabaseUnavailable, match="cannot reach the database"):
            act("postgresql://postgres@127.0.0.1:1/nothing")


def test_no_such_database(server: Server) -> None:
    with pytest.raises(DatabaseUnavailable, match="does not exist"):
        migrate.current(server.database_url("no_such_database"))


def test_sqlalchemy_s_form_of_a_url(empty_database_url: str) -> None:
    assert migrate.upgrade(empty_database_url.replace("postgresql:", "postgresql+psycopg:"))


def test_a_lock_that_another_holds_is_not_waited_for_long(empty_database_url: str) -> None:
    """The migration gives up on a lock, and leaves nothing half done."""
    with psycopg.connect(empty_database_url) as holder:
        holder.execute("CREATE SCHEMA jobq; CREATE TABLE jobq.schema_version (version_num varchar(32) PRIMARY KEY)")
        holder.commit()
        holder.execute("LOCK TABLE jobq.schema_version IN ACCESS EXCLUSIVE MODE")
        with alchemy(empty_database_url) as connection, pytest.raises(OperationalError, match="lock timeout"):
            command.upgrade(migrate._config("jobq", connection), "head")
        holder.rollback()
    assert relations(empty_database_url) == {migrate.VERSION_TABLE}


# --- Partitions --------------------------------------------------------------------------------------------------------

PARENTS = ["job_history_succeeded", "job_history_failed", "job_history_cancelled", "job_history_expired", "job_attempt"]


def partitions(connection: psycopg.Connection[Any], parent: str) -> list[str]:
    rows = connection.execute(
        "SELECT relname FROM pg_inherits JOIN pg_class ON pg_class.oid = inhrelid "
        "WHERE inhparent = ('jobq.' || %s)::regclass ORDER BY relname",
        (parent,),
    ).fetchall()
    return [row[0] for row in rows]


def day(offset: int) -> str:
    return (datetime.now(UTC) + timedelta(days=offset)).strftime("%Y%m%d")


def remember(connection: psycopg.Connection[Any], state: str, finished_at: datetime) -> int:
    row = connection.execute(
        "INSERT INTO jobq.job_history (id, claims, attempt, max_attempts, priority, crashes, queue, task, state, run_at, "
        "created_at, finished_at, args, headers) VALUES (nextval('jobq.job_id_seq'), 1, 1, 1, 5, 0, 'default', 't', "
        "%(state)s, %(at)s, %(at)s, %(at)s, %(empty)s, %(empty)s) RETURNING id",
        {"state": state, "at": finished_at, "empty": Jsonb({})},
    ).fetchone()
    assert row is not None
    return int(row[0])


def where(connection: psycopg.Connection[Any], job_id: int) -> str | None:
    row = connection.execute(
        "SELECT relname FROM jobq.job_history JOIN pg_class ON pg_class.oid = job_history.tableoid WHERE id = %s",
        (job_id,),
    ).fetchone()
    return row[0] if row else None


@pytest.mark.parametrize("parent", PARENTS)
def test_a_week_of_partitions_stands_after_the_migration(conn: psycopg.Connection[Any], parent: str) -> None:
    assert partitions(conn, parent) == [*(f"{parent}_{day(n)}" for n in range(-1, 8)), f"{parent}_rest"]


def test_make_partitions_makes_what_is_missing(conn: psycopg.Connection[Any]) -> None:
    made = [row[0] for row in conn.execute("SELECT jobq.make_partitions(9)").fetchall()]
    assert sorted(made) == sorted(f"{parent}_{day(n)}" for parent in PARENTS for n in (8, 9))
    assert conn.execute("SELECT jobq.make_partitions(9)").fetchall() == []


def test_partitions_are_of_utc_days_in_any_time_zone(empty_database_url: str) -> None:
    url = f"{empty_database_url}?options=-ctimezone%3DPacific/Kiritimati"
    migrate.upgrade(url)
    with psycopg.connect(url) as connection:
        midnight = datetime.now(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
        first = remember(connection, "succeeded", midnight)
        last = remember(connection, "succeeded", midnight + timedelta(days=1, microseconds=-1))
        assert where(connection, first) == where(connection, last) == f"job_history_succeeded_{day(0)}"


def test_rows_go_to_their_state_and_day_and_else_to_the_rest(conn: psycopg.Connection[Any]) -> None:
    now = datetime.now(UTC)
    for state in ("succeeded", "failed", "cancelled", "expired"):
        assert where(conn, remember(conn, state, now)) == f"job_history_{state}_{day(0)}"
        assert where(conn, remember(conn, state, now + timedelta(days=60))) == f"job_history_{state}_rest"
    with pytest.raises(psycopg.errors.CheckViolation):
        remember(conn, "running", now)


def old_partition(connection: psycopg.Connection[Any], parent: str, days: int) -> str:
    """Make the partition of a day in the past, as the maintenance task did then."""
    begin = datetime.now(UTC).replace(hour=0, minute=0, second=0, microsecond=0) - timedelta(days=days)
    name = f"{parent}_{begin:%Y%m%d}"
    connection.execute(
        sql.SQL("CREATE TABLE jobq.{} PARTITION OF jobq.{} FOR VALUES FROM ({}) TO ({})").format(
            sql.Identifier(name), sql.Identifier(parent), begin.isoformat(), (begin + timedelta(days=1)).isoformat()
        )
    )
    return name


def test_drop_partitions_drops_what_is_older_and_only_that(conn: psycopg.Connection[Any]) -> None:
    now = datetime.now(UTC)
    old = [old_partition(conn, "job_history_succeeded", days) for days in (30, 9, 8)]
    kept = [old_partition(conn, "job_history_succeeded", days) for days in (7, 6)]
    failed = old_partition(conn, "job_history_failed", 30)
    gone = [remember(conn, "succeeded", now - timedelta(days=days)) for days in (30, 9)]
    stays = [remember(conn, "succeeded", now - timedelta(days=6)), remember(conn, "failed", now - timedelta(days=30))]
    ancient = remember(conn, "succeeded", now - timedelta(days=400))
    dropped = conn.execute("SELECT jobq.drop_partitions('job_history_succeeded', '7 days')").fetchall()
    assert [row[0] for row in dropped] == old
    assert [where(conn, job) for job in gone] == [None, None]
    assert [where(conn, job) for job in stays] == [kept[1], failed]
    # A row for which no day was made stays in the default partition.
    assert where(conn, ancient) == "job_history_succeeded_rest"
    left = partitions(conn, "job_history_succeeded")
    assert set(kept) < set(left)
    assert "job_history_succeeded_rest" in left
    assert conn.execute("SELECT jobq.drop_partitions('job_history_succeeded', '7 days')").fetchall() == []


def test_drop_partitions_of_attempts_by_any_time_zone(conn: psycopg.Connection[Any]) -> None:
    conn.execute("SET timezone = 'Pacific/Kiritimati'")
    old, kept = old_partition(conn, "job_attempt", 2), f"job_attempt_{day(-1)}"
    assert conn.execute("SELECT jobq.drop_partitions('job_attempt', '1 day')").fetchall() == [(old,)]
    assert kept in partitions(conn, "job_attempt")


def test_drop_partitions_refuses_other_tables(conn: psycopg.Connection[Any]) -> None:
    with pytest.raises(psycopg.errors.InvalidParameterValue, match="not partitioned by day"):
        conn.execute("SELECT jobq.drop_partitions('job', '0 days')")


def test_drop_partitions_does_not_wait_for_a_reader(database_url: str) -> None:
    with psycopg.connect(database_url) as reader, psycopg.connect(database_url) as maintenance_task:
        old = old_partition(maintenance_task, "job_history_succeeded", 30)
        maintenance_task.commit()
        reader.execute(sql.SQL("SELECT FROM jobq.{}").format(sql.Identifier(old)))
        told: list[str | None] = []
        maintenance_task.add_notice_handler(lambda notice: told.append(notice.message_primary))
        assert (
            maintenance_task.execute("SELECT jobq.drop_partitions('job_history_succeeded', '7 days')").fetchall() == []
        )
        assert told == [f"{old} is not dropped: canceling statement due to lock timeout"]
        reader.rollback()
        assert maintenance_task.execute(
            "SELECT jobq.drop_partitions('job_history_succeeded', '7 days')"
        ).fetchall() == [(old,)]


def test_the_statements_are_written_for_the_last_revision() -> None:
    """By this a worker tells, without loading the migrations, that the schema fits."""
    assert migrate.head() == REVISION
