"""The list of findings: objects compared with the revision's, backlog in every state, checks that fail themselves."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psycopg
import pytest
from psycopg import sql

from jobq import diagnostics, migrate, operations, queries
from jobq.diagnostics import Finding, Snapshot, Status, examine, inventory
from jobq.diagnostics.objects import OBJECT_CHECKS
from tests.support.checks import some
from tests.support.rows import add_finished, add_job, add_worker
from tests.support.web import Conn
from tests.worker.maintenance.test_rollup import run as roll_up

OBJECTS, _ = OBJECT_CHECKS["objects"]


def found(db: Conn, schema: str = "jobq") -> list[Finding]:
    with db.transaction():
        return list(OBJECTS(Snapshot(db, schema)))


def told(db: Conn, check: str, *, thorough: bool = True) -> list[tuple[str, str]]:
    with db.transaction():
        findings = list(examine(db, "jobq", thorough=thorough))
    return [(finding.status.value, finding.message) for finding in findings if finding.check == check]


# --- Objects


def test_the_inventory_is_that_of_a_migrated_database(db: Conn) -> None:
    """`python -m jobq.diagnostics.inventory URL > jobq/diagnostics/inventory.json` makes it again."""
    expected = inventory.expected()
    assert expected["revision"] == migrate.head()
    assert inventory.comparable(expected) == inventory.comparable(inventory.read(db, "jobq"))
    assert len(expected["functions"]) == len({name.partition("(")[0] for name in expected["functions"]}) >= 16
    assert set(inventory.sources("jobq")) == {name.partition("(")[0] for name in expected["functions"]}


@pytest.mark.parametrize("schema", ["ready", "Job Queue"])
def test_a_fresh_schema_is_as_it_should_be(empty_database_url: str, schema: str) -> None:
    migrate.upgrade(empty_database_url, schema)
    with psycopg.connect(empty_database_url, autocommit=True) as db:
        assert found(db, schema) == []


def test_a_schema_that_went_up_and_down_again_is_as_it_should_be(
    db: Conn, database_url: str, next_migrations: Path
) -> None:
    migrate.upgrade(database_url)
    migrate.downgrade(database_url, "0009")
    assert found(db) == []


def test_the_fix_for_functions_works(db: Conn) -> None:
    db.execute("DROP FUNCTION jobq.take_key")
    db.execute(
        "CREATE OR REPLACE FUNCTION jobq.entry_state(of_queue text, of_group text) RETURNS text LANGUAGE sql RETURN 'x'"
    )
    findings = found(db)
    assert [finding.message.partition(":")[0] for finding in findings] == [
        "function take_key(text, bigint, text, text, text) is missing",
        "function entry_state(text, text) is another one than its revision has",
    ]
    assert [finding for finding in findings if "DO block" not in str(finding.fix)] == []
    (block,) = [
        block
        for block in re.findall(r"DO \$do\$.*?\$do\$;", migrate.sql(), flags=re.DOTALL)
        if 'FUNCTION "jobq".take_key' in block
    ]
    db.execute(block.encode())
    assert found(db) == []


INVENTORY = inventory.expected()


def test_every_index_is_missed_and_the_fix_works(conn: Conn) -> None:
    keys = dict(
        conn.execute(
            "SELECT class.relname, entry.conname FROM pg_constraint AS entry"
            " JOIN pg_class AS class ON class.oid = entry.conindid"
            " WHERE entry.contype IN ('p', 'u') AND entry.connamespace = 'jobq'::regnamespace"
        ).fetchall()
    )
    parts = {name for (name,) in conn.execute(
        "SELECT relname FROM pg_class JOIN pg_inherits ON inhrelid = oid WHERE relkind IN ('i', 'I')").fetchall()}  # fmt: skip
    # A part of an index cannot be dropped alone.
    names = [name for name, one in INVENTORY["indexes"].items() if name not in parts]
    assert len(names) > 20
    for name in names:
        with conn.transaction(force_rollback=True):
            if name in keys:
                table = sql.Identifier("jobq", INVENTORY["indexes"][name]["table"])
                conn.execute(sql.SQL("ALTER TABLE {} DROP CONSTRAINT {}").format(table, sql.Identifier(keys[name])))
            else:
                conn.execute(sql.SQL("DROP INDEX {}").format(sql.Identifier("jobq", name)))
            findings = found(conn)
            assert any(name in finding.message and "missing" in finding.message for finding in findings), (
                name,
                findings,
            )
            assert all(finding.status is Status.FAIL for finding in some(findings))
            if len(findings) == 1 and "; and so for each" not in findings[0].fix:
                conn.execute(findings[0].fix.encode())
                assert found(conn) == []


def test_every_function_is_missed(conn: Conn) -> None:
    for name in some(INVENTORY["functions"]):
        with conn.transaction(force_rollback=True):
            conn.execute(f"DROP FUNCTION jobq.{name} CASCADE".encode())
            (finding,) = [finding for finding in found(conn) if "function" in finding.message]
            assert finding.message == f"function {name} is missing"


@pytest.mark.parametrize("way", ["DISABLE TRIGGER", "ENABLE REPLICA TRIGGER", "DROP"])
def test_every_trigger_is_missed_and_the_fix_works(conn: Conn, way: str) -> None:
    assert INVENTORY["triggers"]
    for name in some(INVENTORY["triggers"]):
        table, _, trigger = name.partition(".")
        with conn.transaction(force_rollback=True):
            if way == "DROP":
                conn.execute(f'DROP TRIGGER "{trigger}" ON jobq.{table}'.encode())
            else:
                conn.execute(f'ALTER TABLE jobq.{table} {way} "{trigger}"'.encode())
            (finding,) = found(conn)
            assert f"trigger {name} is {'missing' if way == 'DROP' else 'disabled'}" in finding.message
            conn.execute(finding.fix.encode())
            assert found(conn) == []


def test_every_check_constraint_is_missed_and_the_fix_works(conn: Conn) -> None:
    # Those of a partition are its parent's.
    names = [name for name, one in INVENTORY["constraints"].items() if one["kind"] == "c" and "_rest." not in name]
    assert len(names) > 20
    for name in names:
        table, _, constraint = name.partition(".")
        with conn.transaction(force_rollback=True):
            conn.execute(
                sql.SQL("ALTER TABLE {} DROP CONSTRAINT {}").format(
                    sql.Identifier("jobq", table), sql.Identifier(constraint)
                )
            )
            (finding,) = [finding for finding in found(conn) if "constraint" in finding.message]
            assert "missing" in finding.message
            conn.execute(finding.fix.partition("; and so for each")[0].encode())
            assert found(conn) == []


@pytest.mark.parametrize(
    ("statement", "says", "status"),
    [
        ("DROP TABLE jobq.rate_state", "table rate_state is missing", Status.FAIL),
        ("DROP SEQUENCE jobq.notify_mode", "sequence notify_mode is missing", Status.FAIL),
        ("ALTER TABLE jobq.job DROP COLUMN permit CASCADE", "column job.permit is missing", Status.FAIL),
        (
            "ALTER TABLE jobq.job ALTER queue DROP NOT NULL",
            "column job.queue is of another type, NOT NULL",
            Status.FAIL,
        ),
        (
            "ALTER TABLE jobq.job ALTER run_at DROP DEFAULT",
            "column job.run_at is of another type, NOT NULL",
            Status.FAIL,
        ),
        (
            "ALTER TABLE jobq.job ALTER worker_deaths TYPE integer",
            "column job.worker_deaths is of another type",
            Status.FAIL,
        ),
        (
            "DROP INDEX jobq.job_claim_idx; CREATE INDEX job_claim_idx ON jobq.job (queue, run_at) WHERE state = 'ready'",
            "index job_claim_idx is another one than its revision has",
            Status.FAIL,
        ),
        (
            "UPDATE pg_index SET indisvalid = false WHERE indexrelid = 'jobq.job_running_idx'::regclass",
            "index job_running_idx is invalid",
            Status.FAIL,
        ),
        (
            "UPDATE pg_constraint SET convalidated = false WHERE conname = 'job_task_check'",
            "constraint job.job_task_check is not valid",
            Status.WARN,
        ),
        (
            "CREATE OR REPLACE FUNCTION jobq.notify_insert() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NULL; END'",
            "function notify_insert() is another one than its revision has",
            Status.WARN,
        ),
        (
            "ALTER TABLE jobq.group_ready REPLICA IDENTITY DEFAULT",
            "table group_ready is of another replica identity",
            Status.WARN,
        ),
        ("ALTER TABLE jobq.job REPLICA IDENTITY NOTHING", "table job is of another replica identity", Status.WARN),
    ],
)
def test_what_differs_is_named(conn: Conn, statement: str, says: str, status: Status) -> None:
    conn.execute(statement.encode())
    first = next(finding for finding in found(conn) if says in finding.message)
    assert first.status is status
    assert first.fix


def test_a_days_partition_of_another_identity_is_named(conn: Conn) -> None:
    (name,) = conn.execute(
        "SELECT relname FROM pg_class WHERE relname ~ '^job_attempt_[0-9]{8}$' ORDER BY 1"
    ).fetchone()  # type: ignore[misc]
    conn.execute(f"ALTER TABLE jobq.{name} REPLICA IDENTITY DEFAULT".encode())
    (finding,) = found(conn)
    assert name in finding.message
    conn.execute(finding.fix.encode())
    assert found(conn) == []


def test_many_of_a_kind_are_one_line(conn: Conn) -> None:
    names = [name for name in INVENTORY["indexes"] if name.startswith("job_") and not name.endswith("_pkey")]
    dropped = 0
    for name in names:
        try:
            with conn.transaction():
                conn.execute(f"DROP INDEX jobq.{name}".encode())
                dropped += 1
        except (psycopg.errors.DependentObjectsStillExist, psycopg.errors.UndefinedObject):
            continue  # a part of another one, or gone with it
    assert dropped > 5
    (finding,) = found(conn)
    assert "indexes are missing" in finding.message
    assert finding.fix.endswith("; and so for each")


@pytest.mark.parametrize("name", ["job_claim_idx", "job_key_pkey"])
def test_the_fix_of_a_missing_index_works(conn: Conn, name: str) -> None:
    conn.execute(
        (
            f"DROP INDEX jobq.{name}" if "claim" in name else "ALTER TABLE jobq.job_key DROP CONSTRAINT job_key_pkey"
        ).encode()
    )
    conn.execute(found(conn)[0].fix.encode())
    assert found(conn) == []


def test_a_publication_for_all_tables_of_a_server_is_named(conn: Conn) -> None:
    conn.execute("SET LOCAL client_min_messages = error")  # the server is not at wal_level logical
    conn.execute("CREATE PUBLICATION everything FOR ALL TABLES")
    assert told(conn, "publications") == [("ok", "none keeps a table's rows from being changed")]
    conn.execute("ALTER TABLE jobq.group_ready REPLICA IDENTITY DEFAULT")
    ((status, message),) = told(conn, "publications")
    assert status == "fail"
    assert "publication everything (for all tables) publishes changes of group_ready" in message


# --- Backlog: everything that is due


def backlog(db: Conn) -> None:
    """In queue `q` one due job of each state that waits, and one of each for later; the oldest is the waiting one."""
    operations.configure(db, "jobq", "q", groups="ordered", actor="ann")
    add_job(db, queue="q", group_key="g", run_in=-7200)
    add_job(db, queue="q", group_key="h", run_in=7200)
    add_job(db, queue="q", run_in=-60)
    add_job(db, queue="q", run_in=7200)
    for run_in in (-3600, 7200):
        job = add_job(db, queue="q", task="new", run_in=run_in)
        db.execute(
            "UPDATE jobq.job SET state = 'parked', claims = 1, parked_claims = 1, parked_at = now() WHERE id = %s",
            (job,),
        )


def test_every_read_counts_what_is_due(db: Conn, client: Any) -> None:
    backlog(db)
    assert dict(db.execute("SELECT state, count(*) FROM jobq.job GROUP BY 1").fetchall()) == {
        "ready": 2,
        "waiting": 2,
        "parked": 2,
    }
    (queue,) = queries.queues(db, "jobq")
    for info in (queue, queries.queue(db, "jobq", "q").info):
        assert (info.ready, info.scheduled, info.waiting, info.parked, info.due) == (1, 1, 2, 2, 3)
        assert 7100 < (info.oldest_ready_seconds or 0) < 7300
        assert 50 < (info.oldest_unheld_seconds or 0) < 100
    stats, overview = queries.stats(db, "jobq"), queries.overview(db, "jobq")
    assert stats.due == overview.due == 3
    assert 7100 < (stats.oldest_ready_seconds or 0) < 7300
    assert 7100 < (overview.oldest_ready_seconds or 0) < 7300
    for path in ("/api/queues", "/api/stats", "/api/overview"):
        body = json.loads(client.get(path).text)
        assert body["queues"][0]["due"] == 3
        assert body["queues"][0]["oldest_ready_seconds"] > 7100


def test_the_depth_chart_counts_what_is_due(db: Conn, database_url: str) -> None:
    backlog(db)
    roll_up(database_url)
    query = "SELECT queue, ready, oldest_ready_seconds > 7100 FROM jobq.rollup_queue WHERE span = 60 AND ready > 0"
    assert sorted(db.execute(query).fetchall()) == [("", 3, True), ("q", 3, True)]


def test_the_oldest_waiting_job_is_found_behind_many(db: Conn, monkeypatch: pytest.MonkeyPatch) -> None:
    """The first group by name is long and young; the oldest job is in the last one."""
    monkeypatch.setattr("jobq.queries.summary.COUNT_LIMIT", 100)
    monkeypatch.setattr("jobq.queries.queue_detail.COUNT_LIMIT", 100)
    operations.configure(db, "jobq", "q", groups="ordered", actor="ann")
    db.execute(
        "INSERT INTO jobq.job (task, queue, group_key, run_at)"
        " SELECT 't', 'q', 'a', now() - interval '1 minute' FROM generate_series(1, 300)"
    )
    add_job(db, queue="q", group_key="b", run_in=-7200)
    (queue,) = queries.queues(db, "jobq")
    assert (queue.counted_to, queue.due) == (100, 101)
    assert (queue.oldest_ready_seconds or 0) > 7100
    assert (queries.queue(db, "jobq", "q").info.oldest_ready_seconds or 0) > 7100


def test_a_job_put_back_into_a_queue_with_rules_is_due(db: Conn) -> None:
    """No worker knows its task: it is tried again in a minute at most, and has been due all the while."""
    operations.configure(db, "jobq", "q", groups="ordered", actor="ann")
    add_worker(db, tasks=["t"])
    job = add_job(db, queue="q", group_key="g", task="new", run_in=45)
    db.execute(
        "UPDATE jobq.job SET claims = 3, parked_claims = 3, parked_at = now() - interval '1 hour' WHERE id = %s", (job,)
    )
    (queue,) = queries.queues(db, "jobq")
    assert (queue.due, queue.waiting) == (1, 1)
    assert 3500 < (queue.oldest_ready_seconds or 0) < 3700
    ((status, message),) = told(db, "parked")
    assert status == "fail"
    assert "no live worker knows task new" in message


# --- With no worker alive


def test_checks_are_right_when_no_worker_is_alive(db: Conn) -> None:
    backlog(db)
    add_worker(db, tasks=["mail.send"], ago=3600, state="quiet")
    for thorough in (True, False):
        ((status, message), *_) = told(db, "workers", thorough=thorough)
        assert status == "fail"
        assert "no worker is alive: no live worker serves queue q (3 jobs due, the oldest for 2 h)" in message
        for check in ("queues", "tasks"):
            assert told(db, check, thorough=thorough) == [
                ("ok", "nothing to say while no worker is alive: see workers")
            ]


@pytest.mark.parametrize(
    ("make", "status"),
    [
        (lambda db: None, "warn"),
        (lambda db: add_job(db, run_in=600), "fail"),
        (lambda db: add_job(db, state="running"), "fail"),
        (lambda db: add_finished(db, "succeeded"), "warn"),
    ],
    ids=["nothing to do", "later", "running", "all done"],
)
def test_no_worker_is_an_outage_once_there_is_something_to_do(
    db: Conn, make: Callable[[Conn], object], status: str
) -> None:
    make(db)
    assert [found for found, message in told(db, "workers") if "no worker is alive" in message] == [status]


# --- Checks that cannot be made


def test_a_check_that_fails_is_a_finding_and_the_others_are_made(db: Conn) -> None:
    db.execute("ALTER TABLE jobq.worker DROP COLUMN problems")
    for thorough in (True, False):
        with db.transaction():
            findings = list(diagnostics.examine(db, "jobq", thorough=thorough))
        messages = [finding.message for finding in findings]
        assert any("cannot be checked: column" in message for message in messages)
        assert "column worker.problems is missing" in messages
        assert any(finding.check == "partitions" for finding in findings)


def test_a_page_does_not_wait_for_all_checks(db: Conn, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("jobq.diagnostics.checks._PAGE_SECONDS", -1.0)
    with db.transaction():
        findings = list(diagnostics.examine(db, "jobq", thorough=False))
    assert [finding.message for finding in findings if "not checked, since the database was slow" in finding.message]


def test_a_lock_keeps_no_doctor_waiting(db: Conn, database_url: str) -> None:
    with psycopg.connect(database_url) as other:
        other.execute("LOCK TABLE jobq.maintenance_task")
        messages = [message for _, message in told(db, "maintenance")]
    assert messages == ["maintenance cannot be checked: canceling statement due to lock timeout"]


def test_a_read_only_server_is_named(db: Conn) -> None:
    ((status, _),) = told(db, "server")
    assert status == "ok"
    db.execute("SET default_transaction_read_only = on")
    ((status, message),) = told(db, "server")
    assert status == "fail"
    assert "read-only by its settings" in message
