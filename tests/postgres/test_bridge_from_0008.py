"""From revision 0008 over the bridge to the baseline: the same schema as a fresh one, and everything that stood in it."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest
from psycopg import sql

from jobq import migrate
from jobq._worker import compatibility
from jobq.diagnostics import inventory
from jobq.errors import MigrationRefused, MigrationTimeout, SchemaError
from jobq.migrations import bridge
from jobq.queries import fleet
from tests.apps import plain as apps
from tests.support.jobs import Jobs
from tests.support.servers import former, postgres
from tests.support.servers.catalogue import catalogue
from tests.support.waiting import wait_until
from tests.support.workers import ROOT, WorkerProcess

Conn = psycopg.Connection[Any]
DAY = re.compile(r"_[0-9]{8}(?![0-9])")
# Those of the dump that no worker is to run: for the year 9000, in a paused queue, of an unknown task.
WAIT = {13, 19, 21}


@pytest.fixture(scope="module")
def former_template(server: postgres.Server) -> Iterator[str]:
    """The name of a database at 0008, without connections."""
    with postgres.database(server) as url:
        former.restore(url)
        yield url.rpartition("/")[2].partition("?")[0]


@pytest.fixture
def former_url(server: postgres.Server, former_template: str) -> Iterator[str]:
    """The URL of a database at 0008."""
    with postgres.database(server, former_template) as url:
        yield url


@pytest.fixture
def db(former_url: str) -> Iterator[Conn]:
    with psycopg.connect(former_url, autocommit=True) as connection:
        yield connection


def without_days(found: list[tuple[str, str, str]]) -> list[tuple[str, str, str]]:
    """Leave out the partitions of single days, and what belongs to them."""
    return [entry for entry in found if not DAY.search(entry[1]) and not DAY.search(entry[2])]


# What the columns have that the bridge adds.
ADDED: dict[str, tuple[Any, ...]] = {
    "job": (None, None),
    "job_history": (None, None),
    "job_attempt": (None,),
    "schedule": (None, None, None),
    "schedule_tick": (False,),
    "worker": (3.5,),
}


def rows(db: Conn) -> dict[str, list[tuple[Any, ...]]]:
    """Return every row, by the names that tables have now."""
    tables = db.execute(
        "SELECT relname::text FROM pg_class WHERE relnamespace = 'jobq'::regnamespace AND relkind IN ('r', 'p')"
        " AND NOT relispartition AND relname <> 'schema_version'"
    ).fetchall()
    return {
        bridge.TABLES.get(table, table): sorted(
            db.execute(sql.SQL("SELECT * FROM jobq.{}").format(sql.Identifier(table))).fetchall(), key=repr
        )
        for (table,) in tables
    }


def alembic(url: str, *command: str) -> subprocess.CompletedProcess[str]:
    environ = {**os.environ, "JOBQ_DATABASE_URL": url}
    return subprocess.run(
        [sys.executable, "-m", "alembic", *command], cwd=ROOT, env=environ, capture_output=True, text=True, check=False
    )


# --- The schema -------------------------------------------------------------------------------------------------------


def by_jobq(url: str) -> None:
    assert [step.id for step in migrate.pending(url)] == ["0009"]
    assert migrate.upgrade(url) == ["0009"]


def by_alembic(url: str) -> None:
    done = alembic(url, "upgrade", "head")
    assert done.returncode == 0, done.stderr


def by_printed_sql(url: str) -> None:
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(migrate.sql(start="0008").encode())


@pytest.mark.parametrize("upgrade", [by_jobq, by_alembic, by_printed_sql])
def test_it_makes_the_schema_of_the_baseline(
    former_url: str, database_url: str, upgrade: Callable[[str], None]
) -> None:
    assert without_days(catalogue(former_url)) != without_days(catalogue(database_url))
    upgrade(former_url)
    migrate.check(former_url)
    assert without_days(catalogue(former_url)) == without_days(catalogue(database_url))
    with psycopg.connect(former_url) as connection:
        assert inventory.comparable(inventory.read(connection, "jobq")) == inventory.comparable(inventory.expected())
    # And nothing is left to do.
    before = catalogue(former_url)
    assert migrate.upgrade(former_url) == []
    by_alembic(former_url)
    assert catalogue(former_url) == before


def test_the_columns_stand_in_the_order_of_the_baseline(former_url: str, database_url: str) -> None:
    """Rows of the default partitions are moved by `SELECT *`, and new partitions are made like those."""
    order = (
        "SELECT attrelid::regclass::text, array_agg(attname::text ORDER BY attnum) FROM pg_attribute"
        " JOIN pg_class ON pg_class.oid = attrelid WHERE relnamespace = 'jobq'::regnamespace AND relkind IN ('r', 'p')"
        " AND attnum > 0 AND NOT attisdropped AND relname !~ '_[0-9]{8}$' GROUP BY 1 ORDER BY 1"
    )
    migrate.upgrade(former_url)
    with psycopg.connect(former_url) as crossed, psycopg.connect(database_url) as fresh:
        assert crossed.execute(order).fetchall() == fresh.execute(order).fetchall()


def test_the_revisions_after_it_follow_in_the_same_run(
    former_url: str, database_url: str, next_migrations: Path
) -> None:
    assert migrate.upgrade(former_url) == ["0009", "0010", "0011"]
    migrate.upgrade(database_url)
    retired = re.compile(r"_0009\(")
    sides = [
        [entry for entry in without_days(catalogue(url)) if not retired.search(entry[1])]
        for url in (former_url, database_url)
    ]
    assert [entry for entry in sides[0] if "_0008(" not in entry[1]] == sides[1]


def test_it_can_be_removed_from_0008(former_url: str, db: Conn) -> None:
    assert migrate.downgrade(former_url, "base") == []
    assert db.execute("SELECT to_regnamespace('jobq') IS NULL").fetchone() == (True,)


# --- What stood in it ---------------------------------------------------------------------------------------------------


def test_every_row_is_still_there(former_url: str, db: Conn) -> None:
    before = rows(db)
    assert len(before["job"]) == 14
    assert len(before["job_history"]) == 7
    assert all(
        before[table] for table in ("job_attempt", "job_key", "queue", "schedule", "schedule_tick", "audit", "web_user")
    )
    migrate.upgrade(former_url)
    # The default of --lease stands in for the lease of a worker that did not write one.
    before["worker"] = [(*row[:-1], 30.0) for row in before["worker"]]
    before["schedule"] = [
        tuple("runtime" if value == "run time" else value for value in row) for row in before["schedule"]
    ]
    assert any("runtime" in row for row in before["schedule"])
    after = rows(db)
    parts = ("", "_arrival", "_join", "_node", "_result", "_turn")
    assert {table: after.pop(table) for table in after.keys() - before.keys()} == {
        **{f"workflow{part}": [] for part in parts},
        **{f"job_{part}": [] for part in ("signal", "step", "wakeup")},
    }
    assert after == {table: [(*row, *ADDED.get(table, ())) for row in found] for table, found in before.items()}


@pytest.mark.slow
def test_a_worker_runs_the_jobs_that_waited(former_url: str, tmp_path: Path) -> None:
    migrate.upgrade(former_url)
    jobs = Jobs(former_url)
    apps.create_traces(jobs.connection)
    waiting = {row["id"] for row in jobs.all("SELECT id FROM jobq.job")} - WAIT
    worker = WorkerProcess(former_url, tmp_path / "worker.log")
    try:
        assert {jobs.wait(job)["state"] for job in waiting} == {"succeeded"}, worker.log
        assert {row["id"] for row in jobs.all("SELECT id FROM jobq.job")} == WAIT
        notes = [jobs.traces(job) for job in (15, 16, 17)]
        assert notes == [["group 0"], ["group 1"], ["group 2"]]
        # What was held until its job had finished is free; what holds for a time is not.
        assert not apps.record.options(key="period").enqueue(jobs.connection, "again").created
        again = apps.record.options(key="live").enqueue(jobs.connection, "again")
        assert again.created
        assert jobs.wait(again.id)["state"] == "succeeded"
    finally:
        worker.close()
        jobs.close()


def test_what_users_have_built_upon_former_functions_stays_and_the_rest_of_those_goes(
    former_url: str, db: Conn
) -> None:
    db.execute("CREATE VIEW mailing AS SELECT jobq.enqueue_0005('mail', '{\"n\": 7}') AS id")
    migrate.upgrade(former_url)
    left = db.execute(
        "SELECT proname::text FROM pg_proc WHERE pronamespace = 'jobq'::regnamespace AND proname ~ '_[0-9]{4}$'"
    ).fetchall()
    assert left == [("enqueue_0005",)]
    assert db.execute("SELECT id > 0 FROM mailing").fetchone() == (True,)


def test_rights_owner_and_comments_stay(former_url: str, db: Conn) -> None:
    may = "may_" + former_url.rsplit("_", 1)[1]
    entries = (
        "SELECT relname::text, relacl::text, NULL FROM pg_class"
        " WHERE relnamespace = 'jobq'::regnamespace AND relacl IS NOT NULL"
        " UNION ALL SELECT proname::text, proacl::text, obj_description(oid, 'pg_proc') FROM pg_proc"
        " WHERE pronamespace = 'jobq'::regnamespace AND proacl IS NOT NULL AND proname !~ '_[0-9]{4}$' ORDER BY 1"
    )
    db.execute(f"CREATE ROLE {may}".encode())
    try:
        db.execute("REVOKE ALL ON ALL FUNCTIONS IN SCHEMA jobq FROM PUBLIC")
        db.execute("COMMENT ON FUNCTION jobq.claim_managed IS 'theirs'")
        db.execute(f"GRANT SELECT ON jobq.job, jobq.worker TO {may}".encode())
        db.execute(f"GRANT EXECUTE ON FUNCTION jobq.enqueue TO {may}".encode())
        renamed = bridge.TABLES | {"claim_managed": "claim_limited", "managed_running": "limited_running"}
        before = [(renamed.get(name, name), acl, said) for name, acl, said in db.execute(entries).fetchall()]
        migrate.upgrade(former_url)
        assert db.execute(entries).fetchall() == sorted(before)
    finally:
        db.execute(f"DROP OWNED BY {may}; DROP ROLE {may}".encode())


def test_no_call_fails_meanwhile(former_url: str, db: Conn) -> None:
    calls = ["SELECT jobq.enqueue('mail')", "SELECT jobq.enqueue('mail', key => gen_random_uuid()::text)"]
    stop = threading.Event()
    errors: list[str] = []
    made = [0, 0]

    def produce(n: int) -> None:
        with psycopg.connect(former_url, autocommit=True) as connection:
            while not stop.is_set():
                try:
                    connection.execute(calls[n].encode())
                    made[n] += 1
                except psycopg.Error as error:
                    errors.append(f"{error.sqlstate} {error}")

    def more_calls() -> None:
        before = sum(made)
        wait_until(lambda: sum(made) > before + 40, what="more calls")

    threads = [threading.Thread(target=produce, args=(n,)) for n in range(len(calls))]
    for thread in threads:
        thread.start()
    try:
        more_calls()
        migrate.upgrade(former_url)
        more_calls()
    finally:
        stop.set()
        for thread in threads:
            thread.join()
    # A call that waits for the renamed table with the former function's text fails once; the next one is right.
    assert len(errors) <= len(threads)
    assert [error for error in errors if not error.startswith("42703")] == []
    assert db.execute("SELECT count(*) FROM jobq.job WHERE task = 'mail'").fetchone() == (sum(made),)


# --- What stands in the way ---------------------------------------------------------------------------------------------


def test_what_fails_leaves_everything_as_it_was(former_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    before = catalogue(former_url)
    monkeypatch.setattr(
        bridge, "STATEMENTS", ("DROP TABLE {schema}.rate_state", "ALTER TABLE {schema}.nowhere ADD COLUMN n integer")
    )
    with pytest.raises(MigrationRefused, match=r"nowhere.*at revision 0008"):
        migrate.upgrade(former_url)
    assert catalogue(former_url) == before
    assert migrate.current(former_url) == "0008"


def test_it_waits_for_locks_no_longer_than_told_and_names_who_holds_them(former_url: str, db: Conn) -> None:
    with psycopg.connect(former_url) as holder:
        holder.execute("SELECT FROM jobq.schedule_tick FOR UPDATE")
        with pytest.raises(MigrationTimeout, match=rf"pg_terminate_backend\({holder.info.backend_pid}\)"):
            migrate.upgrade(former_url, patience=0.5)
    assert migrate.upgrade(former_url) == ["0009"]


@pytest.mark.parametrize("found", bridge.OLDER)
def test_older_revisions_are_refused_with_what_to_do(former_url: str, db: Conn, found: str) -> None:
    db.execute("UPDATE jobq.schema_version SET version_num = %s", (found,))
    before = catalogue(former_url)
    for act in (migrate.upgrade, migrate.pending, migrate.check, lambda url: migrate.downgrade(url, "base")):
        with pytest.raises(
            SchemaError, match=f"is at revision {found}.*bring it to 0008.*or.*DROP SCHEMA jobq CASCADE"
        ):
            act(former_url)
    assert catalogue(former_url) == before


def test_alembic_refuses_older_revisions_too(former_url: str, db: Conn) -> None:
    db.execute("UPDATE jobq.schema_version SET version_num = '0005'")
    done = alembic(former_url, "upgrade", "head")
    assert done.returncode != 0
    assert "is at revision 0005" in done.stderr + done.stdout
    assert "Traceback" not in done.stderr
    assert migrate.current(former_url) == "0005"


# --- Programs of the one revision on a schema of the other ----------------------------------------------------------------


@pytest.mark.process
@pytest.mark.parametrize(("found", "said"), [("0008", "run `jobq migrate`"), ("0005", "bring it to 0008")])
def test_a_worker_newer_than_the_schema_refuses_with_what_to_do(
    former_url: str, db: Conn, tmp_path: Path, found: str, said: str
) -> None:
    db.execute("UPDATE jobq.schema_version SET version_num = %s", (found,))
    before = rows(db)
    worker = WorkerProcess(former_url, tmp_path / "worker.log")
    try:
        assert worker.wait() == 78
        assert f"is at revision {found}" in worker.log
        assert said in worker.log
    finally:
        worker.close()
    assert rows(db) == before


def test_a_worker_of_0008_does_not_start_on_the_baseline(former_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """It asks the schema, which says that it works with programs from 0009 on; then it waits for its replacement."""
    migrate.upgrade(former_url)
    monkeypatch.setattr(compatibility, "REVISION", "0008")
    monkeypatch.setattr(fleet, "REVISION", "0008")
    assert compatibility._newer(former_url, "jobq") == "0009"
    with pytest.raises(SchemaError, match=r"revision 0009.*upgrade this one"):
        compatibility.await_schema(former_url, "jobq", None, wait=False)  # type: ignore[arg-type]  # it tells nothing


# --- How tables are renamed -----------------------------------------------------------------------------------------------


def test_what_is_named_after_a_table_is_renamed_with_it(
    former_url: str, db: Conn, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With names of its own, whatever the bridge has by now."""
    names = (
        "SELECT relname::text FROM pg_class WHERE relnamespace = 'jobq'::regnamespace AND relname ~ %(like)s UNION ALL "
        "SELECT conname::text FROM pg_constraint WHERE connamespace = 'jobq'::regnamespace AND conname ~ %(like)s"
        " AND contype <> 'n' ORDER BY 1"
    )
    before = [name for (name,) in db.execute(names, {"like": "^(operation|gate)(_|$)"}).fetchall()]
    own = [name for name in before if not name.startswith("operation_batch")]
    kept = db.execute("SELECT id, filter, actor FROM jobq.operation").fetchall()
    monkeypatch.setattr(bridge, "TABLES", {"gate": "barrier"})
    monkeypatch.setattr(bridge, "STATEMENTS", ("ALTER TABLE {schema}.barrier RENAME COLUMN head_id TO first_id",))
    assert migrate.upgrade(former_url) == ["0009"]
    assert [name for (name,) in db.execute(names, {"like": "^gate(_|$)"}).fetchall()] == []
    assert [name for (name,) in db.execute(names, {"like": "^barrier(_|$)"}).fetchall()] == sorted(
        name.replace("gate", "barrier") for name in own if name.startswith("gate")
    )
    assert db.execute("SELECT first_id, queue FROM jobq.barrier").fetchall() is not None
    assert db.execute("SELECT id, filter, actor FROM jobq.operation").fetchall() == kept
