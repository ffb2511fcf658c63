"""deploy/roles.sql: what each role may do works through jobq's own code, and what it may not is refused.

A worker's own role at work: test_roles_at_work.py.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import psycopg
import pytest
from psycopg import AsyncConnection

from jobq import migrate, operations, queries
from jobq._worker.sources.schedule_tick import Ticked, tick
from jobq.cron import Cron, Every
from jobq.errors import KeyConflict
from jobq.filters import JobFilter
from jobq.schedule import Schedule
from tests.support.rows import add_attempt, add_finished, add_job, add_worker
from tests.support.servers.roles import ROLES, Login, grant_roles, logins

DENIED = psycopg.errors.InsufficientPrivilege


@pytest.fixture
def login(database_url: str) -> Iterator[Login]:
    with logins(database_url) as made:
        yield made


def refused(url: str, statements: list[str]) -> None:
    """Every one of `statements` is refused because a privilege is missing."""
    with psycopg.connect(url, autocommit=True) as connection:
        for statement in statements:
            with pytest.raises(DENIED):
                connection.execute(statement.encode())


# --- The whole table -----------------------------------------------------------------------------------------------------

S, I, U, D = "SELECT", "INSERT", "UPDATE", "DELETE"  # noqa: E741
# What each role may do to the whole of a table; columns apart.
WANTED: dict[str, dict[str, set[str]]] = {
    "producer": {"schema_version": {S}},
    "worker": {
        "job": {S, I, U, D},
        "job_history": {S, I},
        "job_attempt": {S, I},
        "job_key": {S, D},
        "worker": {S, I, U, D},
        "maintenance_task": {S, I, U},
        "rollup_queue": {S, I, U, D},
        "rollup_task": {S, I, U, D},
        "rollup_mark": {S, I, U, D},
        "queue": {S},
        "schedule": {S, I, U},
        "schedule_tick": {S, I, D},
        "group_ready": {S, I, D},
        "rate_state": {S, I, U, D},
        "workflow": {S},
        "workflow_node": {S},
        "workflow_join": {S},
        "workflow_arrival": {S},
        "workflow_turn": {S, D},
        "workflow_result": {S, I},
        "job_step": {S, I, U, D},
        "job_signal": {S, D},
        "job_wakeup": {S, I, U, D},
        "schema_version": {S},
    },
    "viewer": {
        name: {S}
        for name in (
            "job", "job_history", "job_attempt", "job_key", "worker", "maintenance_task", "queue", "audit", "schema_version",
            "rollup_queue", "rollup_task", "rollup_mark", "operation", "operation_batch", "group_ready", "rate_state",
            "schedule", "schedule_tick", "workflow", "workflow_node", "workflow_join", "workflow_arrival", "workflow_turn",
            "workflow_result", "job_step", "job_signal", "job_wakeup",
        )
    },
    "operator": {
        "job": {S, I, D},
        "job_history": {S, I, D},
        "job_attempt": {S, D},
        "job_key": {S, D},
        "worker": {S},
        "maintenance_task": {S},
        "queue": {S, I, U},
        "audit": {S, I},
        "rollup_queue": {S},
        "rollup_task": {S},
        "rollup_mark": {S},
        "operation": {S, I, U},
        "operation_batch": {S, I},
        "schedule": {S, I, U, D},
        "schedule_tick": {S},
        "group_ready": {S, I},
        "rate_state": {S, I, U, D},
        "web_user": {S},
        "workflow": {S},
        "workflow_node": {S},
        "workflow_join": {S},
        "workflow_arrival": {S},
        "workflow_turn": {S},
        "workflow_result": {S, I, D},
        "job_step": {S, D},
        "job_signal": {S, D},
        "job_wakeup": {S},
        "schema_version": {S},
    },
}  # fmt: skip
# Those of former revisions, too: what users have built upon them goes on.
ENQUEUE = {
    "enqueue",
    "enqueue_one",
    "enqueue_keyed",
    "enqueue_workflow",
    "workflow_add_nodes",
    "send_signal",
    "try_send_signal",
}
FUNCTIONS = {
    "producer": ENQUEUE,
    "worker": {
        *ENQUEUE,
        "oldest_program",
        "make_partitions",
        "make_partition",
        "drop_partitions",
        "prune_rest",
        "rest_due",
        "take_key",
        "claim_limited",
        "limited_running",
        "admits",
        "admits_from",
        "entry_state",
        "workflow_step",
        "workflow_cancel",
        "workflow_resume",
        "workflow_prune",
        "cancel_children",
    },
    "viewer": {"oldest_program", "admits_from"},
    "operator": {
        "oldest_program",
        "admits_from",
        "entry_state",
        "take_key",
        "enqueue_one",
        "workflow_cancel",
        "workflow_retry",
        "workflow_retry_from",
        "workflow_undo",
        "workflow_resume",
        "send_signal",
        "try_send_signal",
        "cancel_children",
    },
}
COLUMNS = {
    ("producer", "job", "SELECT"): {"id", "state", "attempt", "max_attempts", "run_at", "progress", "node_id"},
    ("producer", "job", "INSERT"): {
        "task", "args", "queue", "priority", "run_at", "expires_at", "max_attempts", "timeout", "group_key", "headers",
    },
    ("producer", "job_history", "SELECT"): {"id", "state", "result", "error", "attempt", "max_attempts", "claims"},
    ("producer", "job_attempt", "SELECT"): {"job_id", "claims", "outcome", "finished_at", "error_type", "message"},
    ("producer", "workflow", "SELECT"): {"id", "state", "reason"},
    ("producer", "workflow_node", "SELECT"): {"id", "workflow_id", "number", "name"},
    ("producer", "workflow_join", "SELECT"): {"workflow_id", "released_at", "remaining", "failed", "tolerated"},
    ("producer", "workflow_turn", "SELECT"): {"subject_id", "kind"},
    ("producer", "workflow_result", "SELECT"): {"node_id", "item", "job_id", "state", "error", "result", "finished_at"},
    ("worker", "job_key", "UPDATE"): {"expires_at"},
    ("worker", "queue", "INSERT"): {"name", "group_mode", "group_limit", "group_retry"},
    ("worker", "queue", "UPDATE"): {"group_mode", "group_limit", "group_retry"},
    ("operator", "job", "UPDATE"): {
        "run_at", "queue", "priority", "state", "cancel_requested_at", "limited", "permit", "parked_claims",
    },
    ("worker", "job_signal", "UPDATE"): {"taken_at", "taken_by"},
    ("worker", "workflow", "UPDATE"): {"parent_job_id", "key"},
    ("operator", "job_step", "UPDATE"): {"state", "error", "finished_at"},
    ("operator", "workflow", "UPDATE"): {"key"},
    ("operator", "job_history", "UPDATE"): {"finished_at"},
    ("operator", "worker", "UPDATE"): {"requested_state"},
}  # fmt: skip


@pytest.mark.parametrize("role", ROLES)
def test_tables(conn: psycopg.Connection[Any], login: Login, role: str) -> None:
    rows = conn.execute(
        "SELECT relname, privilege FROM pg_class "
        "CROSS JOIN unnest(ARRAY['SELECT','INSERT','UPDATE','DELETE','TRUNCATE','REFERENCES','TRIGGER']) AS privilege "
        "WHERE relnamespace = 'jobq'::regnamespace AND relkind IN ('r', 'p') AND NOT relispartition "
        "AND has_table_privilege(%s, pg_class.oid, privilege)",
        (f"jobq_{role}",),
    ).fetchall()
    found: dict[str, set[str]] = {}
    for table, privilege in rows:
        found.setdefault(table, set()).add(privilege)
    assert found == WANTED[role]


@pytest.mark.parametrize("role", ROLES)
def test_columns(conn: psycopg.Connection[Any], login: Login, role: str) -> None:
    rows = conn.execute(
        "SELECT table_name, privilege_type, column_name FROM information_schema.column_privileges "
        "WHERE table_schema = 'jobq' AND grantee = %s",
        (f"jobq_{role}",),
    ).fetchall()
    found: dict[tuple[str, str, str], set[str]] = {}
    for table, privilege, column in rows:
        if privilege not in WANTED[role].get(table, set()) and table in migrate_tables():
            found.setdefault((role, table, privilege), set()).add(column)
    assert found == {key: columns for key, columns in COLUMNS.items() if key[0] == role}


def migrate_tables() -> set[str]:
    from jobq._postgres.tables import metadata

    return {table.name for table in metadata().tables.values()} | {migrate.VERSION_TABLE}


@pytest.mark.parametrize("role", ROLES)
def test_functions(conn: psycopg.Connection[Any], login: Login, role: str) -> None:
    rows = conn.execute(
        "SELECT proname FROM pg_proc WHERE pronamespace = 'jobq'::regnamespace "
        "AND has_function_privilege(%s, oid, 'EXECUTE')",
        (f"jobq_{role}",),
    ).fetchall()
    assert {row[0] for row in rows} == FUNCTIONS[role]


@pytest.mark.parametrize("role", ROLES)
def test_partitions_and_sequences(conn: psycopg.Connection[Any], login: Login, role: str) -> None:
    """Rows reach partitions through their parents; only who views reads them one by one, those made later too."""
    conn.execute("SELECT jobq.make_partitions(20)")
    rows = conn.execute(
        "SELECT DISTINCT privilege FROM pg_class "
        "CROSS JOIN unnest(ARRAY['SELECT','INSERT','UPDATE','DELETE','TRUNCATE','REFERENCES','TRIGGER']) AS privilege "
        "WHERE relnamespace = 'jobq'::regnamespace AND relkind IN ('r', 'p') AND relispartition "
        "AND has_table_privilege(%s, pg_class.oid, privilege)",
        (f"jobq_{role}",),
    ).fetchall()
    assert rows == ([("SELECT",)] if role in ("viewer", "operator") else [])
    seen = conn.execute(
        "SELECT bool_and(has_table_privilege(%s, oid, 'SELECT')) FROM pg_class "
        "WHERE relnamespace = 'jobq'::regnamespace AND relkind IN ('r', 'p') AND relispartition",
        (f"jobq_{role}",),
    ).fetchone()
    assert seen == (role in ("viewer", "operator"),)
    sequences = conn.execute(
        "SELECT relname FROM pg_class WHERE relnamespace = 'jobq'::regnamespace AND relkind = 'S' "
        "AND (has_sequence_privilege(%(role)s, oid, 'USAGE') OR has_sequence_privilege(%(role)s, oid, 'UPDATE'))",
        {"role": f"jobq_{role}"},
    ).fetchall()
    # The worker sets the mode of waking and gives out the numbers of limited claims, and no other role does.
    assert sorted(sequences) == ([("notify_mode",), ("permit",)] if role == "worker" else [])


@pytest.mark.parametrize("role", ROLES)
def test_nobody_makes_or_drops_anything(login: Login, role: str) -> None:
    refused(
        login(role),
        [
            "CREATE TABLE jobq.mine (n integer)",
            "CREATE FUNCTION jobq.mine() RETURNS integer LANGUAGE sql AS 'SELECT 1'",
            "DROP TABLE jobq.job_key",
            "ALTER TABLE jobq.job ADD COLUMN mine integer",
            "ALTER TABLE jobq.job DISABLE TRIGGER ALL",
            "TRUNCATE jobq.audit",
            "DELETE FROM jobq.audit",
            "UPDATE jobq.audit SET actor = 'another user'",
            "UPDATE jobq.schema_version SET version_num = '0'",
        ],
    )


def test_everybody_else_gets_nothing(login: Login) -> None:
    stranger = login(None)
    refused(
        stranger,
        [
            "SELECT count(*) FROM jobq.job",
            "SELECT jobq.enqueue('t')",
            "SELECT jobq.make_partitions(1)",
            "SELECT jobq.drop_partitions('job_history_failed', '0')",
            "INSERT INTO jobq.job (task) VALUES ('t')",
        ],
    )
    with psycopg.connect(stranger) as connection:
        row = connection.execute(
            "SELECT count(*) FROM pg_proc WHERE pronamespace = 'jobq'::regnamespace AND has_function_privilege(oid, 'EXECUTE')"
        ).fetchone()
    assert row == (0,)


# --- Producer ------------------------------------------------------------------------------------------------------------


def test_a_producer_enqueues(login: Login) -> None:
    from jobq import JobQ

    url = login("producer")
    app = JobQ(url)

    @app.task
    def greet(name: str) -> str:
        return name

    try:
        migrate.check(url)
        with psycopg.connect(url) as connection:
            first = greet.enqueue(connection, "a")
            assert greet.options(key="k").enqueue(connection, "b").created
            assert not greet.options(key="k").enqueue(connection, "c").created
            greet.options(key="k", on_conflict="replace").enqueue(connection, "d")
            with pytest.raises(KeyConflict):
                greet.options(key="k", on_conflict="raise").enqueue(connection, "e")
            assert len(app.enqueue_many(connection, [greet.job(str(n)) for n in range(20)])) == 20
            row = connection.execute("SELECT jobq.enqueue('greet', '{\"name\": \"x\"}', key => 'other')").fetchone()
            assert row
            connection.execute("INSERT INTO jobq.job (task, args) VALUES ('greet', '{\"name\": \"y\"}')")
        greet.submit("f")
        assert first.id
        with pytest.raises(TimeoutError, match="no worker has started it"):
            first.result(timeout=0)
        assert (first.progress(), first.error()) == (None, None)
        # It may not cancel.
        with pytest.raises(DENIED):
            first.cancel()
    finally:
        app.close()


def test_a_producer_does_no_more(login: Login) -> None:
    refused(
        login("producer"),
        [
            "SELECT args FROM jobq.job",
            "SELECT args FROM jobq.job_history",
            "SELECT key FROM jobq.job_key",
            "SELECT traceback FROM jobq.job_attempt",
            "SELECT * FROM jobq.audit",
            "SELECT * FROM jobq.worker",
            "UPDATE jobq.job SET priority = 9",
            "DELETE FROM jobq.job",
            "INSERT INTO jobq.job (task, state) VALUES ('t', 'running')",
            "INSERT INTO jobq.job (id, task) VALUES (1, 't')",
            "INSERT INTO jobq.job (task, key) VALUES ('t', 'k')",
            "INSERT INTO jobq.job_key (job_id, key, holds) VALUES (1, 'k', 'until_finished')",
            "INSERT INTO jobq.queue (name, paused_at) VALUES ('default', now())",
            "SELECT jobq.make_partitions(1)",
            "SELECT jobq.drop_partitions('job_history_failed', '0')",
            "SELECT nextval('jobq.job_id_seq')",
        ],
    )


# --- Worker --------------------------------------------------------------------------------------------------------------


def test_a_worker_does_no_more(login: Login) -> None:
    refused(
        login("worker"),
        [
            "SELECT * FROM jobq.audit",
            "INSERT INTO jobq.audit (actor, action, target) VALUES ('a', 'b', '{}')",
            "INSERT INTO jobq.queue (name, paused_at) VALUES ('default', now())",
            "UPDATE jobq.queue SET paused_at = NULL",
            "DELETE FROM jobq.job_history",
            "UPDATE jobq.job_history SET state = 'succeeded'",
            "DELETE FROM jobq.job_attempt",
            "INSERT INTO jobq.job_key (job_id, key, holds) VALUES (1, 'k', 'until_finished')",
            "UPDATE jobq.job_key SET job_id = 1",
            "DELETE FROM jobq.schedule",
            "UPDATE jobq.schedule_tick SET job_id = 1",
        ],
    )


# --- Viewer and operator -------------------------------------------------------------------------------------------------


def finish(url: str, state: str) -> int:
    with psycopg.connect(url) as connection:
        row = connection.execute(
            "INSERT INTO jobq.job_history (id, claims, attempt, max_attempts, priority, crashes, queue, task, state, run_at, "
            "created_at, finished_at, args, headers) VALUES (nextval('jobq.job_id_seq'), 1, 1, 1, 5, 0, 'default', 't', "
            "%s, now(), now(), now(), '{}', '{}') RETURNING id",
            (state,),
        ).fetchone()
    assert row
    return int(row[0])


def look_at_everything(connection: psycopg.Connection[Any], job: int) -> None:
    assert queries.get_job(connection, "jobq", job).id == job
    looks: list[Callable[[psycopg.Connection[Any], str], object]] = [
        queries.overview, queries.queues, queries.list_jobs, queries.workers, queries.maintenance_tasks, queries.audit_log,
        queries.stats, queries.throughput, queries.schema_revision, queries.schedules,
    ]  # fmt: skip
    for look in looks:
        look(connection, "jobq")


@pytest.mark.parametrize("role", ["viewer", "operator"])
def test_who_views_sees_everything(database_url: str, login: Login, role: str) -> None:
    job = finish(database_url, "failed")
    url = login(role)
    migrate.check(url)
    with psycopg.connect(url) as connection:
        look_at_everything(connection, job)


def test_a_viewer_changes_nothing(database_url: str, login: Login) -> None:
    job = finish(database_url, "failed")
    url = login("viewer")
    with psycopg.connect(url) as connection:
        for act in (operations.retry, operations.cancel):
            with pytest.raises(DENIED):
                act(connection, "jobq", [job], actor="me")
            connection.rollback()
        with pytest.raises(DENIED):
            operations.pause(connection, "jobq", "default", actor="me")
        connection.rollback()
        with pytest.raises(DENIED):
            operations.configure(connection, "jobq", "default", actor="me", limit=3)
    refused(
        url,
        [
            "INSERT INTO jobq.job (task) VALUES ('t')",
            "SELECT jobq.enqueue('t')",
            "SELECT jobq.drop_partitions('job_history_failed', '0')",
            "SELECT FROM jobq.job FOR UPDATE",
        ],
    )


def test_an_operator_operates(database_url: str, login: Login) -> None:
    dead = [finish(database_url, state) for state in ("failed", "cancelled", "expired")]
    with psycopg.connect(database_url) as connection:
        rows = connection.execute(
            "SELECT jobq.enqueue('t'), jobq.enqueue('t', key => 'k', key_holds => 'until_finished'), "
            "jobq.enqueue('t', delay => '1 day'), jobq.enqueue('t')"
        ).fetchone()
        assert rows
        ready, keyed, later, running = rows
        connection.execute("UPDATE jobq.job SET state = 'running' WHERE id = %s", (running,))
    with psycopg.connect(login("operator")) as connection:
        assert operations.retry(connection, "jobq", [*dead, later], actor="me").done == sorted([*dead, later])
        asked = [ready, keyed, running]
        assert operations.cancel(connection, "jobq", asked, actor="me", reason="for the test").done == sorted(asked)
        assert operations.pause(connection, "jobq", "default", actor="me")
        assert operations.resume(connection, "jobq", "default", actor="me")
        limits(connection, database_url)
        assert operations.count_where(connection, "jobq", state="ready") == 4
        assert len(operations.cancel_where(connection, "jobq", actor="me").done) == 4
        connection.commit()
        assert len(queries.audit_log(connection, "jobq")) >= 5
        one_by_one(connection, database_url)
        in_bulk(connection, database_url)
        assert connection.execute("SELECT count(*) FROM jobq.job_key").fetchone() == (0,)


async def test_a_schedule_with_a_key(database_url: str, login: Login) -> None:
    """An operator makes and runs it, a worker ticks it: both take the key by the function alone."""
    made = Schedule(name="s", task="t", when=Every(timedelta(hours=1)), key="k")
    with psycopg.connect(login("operator"), autocommit=True) as connection:
        operations.set_schedule(connection, "jobq", made, actor="me")
        job = operations.run_schedule(connection, "jobq", "s", actor="me")
        assert operations.cancel(connection, "jobq", [job], actor="me").done == [job]
    async with await AsyncConnection.connect(login("worker"), autocommit=True) as worker:
        now = datetime.now(UTC) + timedelta(hours=2)
        assert await tick(worker, "jobq", now=now) == Ticked("s", 1)
        assert await tick(worker, "jobq", now=now + timedelta(hours=1)) == Ticked("s", 0, 1)


def limits(operator: psycopg.Connection[Any], database_url: str) -> None:
    """Every statement of a change: running jobs are counted, rates rescaled, turns given, limits of groups set and cleared."""
    with psycopg.connect(database_url) as connection:
        running = add_job(connection, queue="limited", state="running", group_key="a")
    settings: list[dict[str, Any]] = [
        {"limit": 5, "rate": "50/s", "groups": "fair", "group_rate": "5/s"}, {"rate": "5/s", "group_rate": "50/s"},
    ]  # fmt: skip
    for wanted in settings:
        assert operations.configure(operator, "jobq", "limited", actor="me", **wanted).changed
    for limit in (3, None, 2):
        assert operations.configure_group(operator, "jobq", "limited", "a", limit=limit, actor="me")
    with psycopg.connect(database_url) as connection:
        add_job(connection, queue="limited", group_key="a")
    assert operations.configure(operator, "jobq", "limited", actor="me", groups="ordered").changed
    none: dict[str, Any] = dict.fromkeys(("limit", "rate", "groups"))
    assert operations.configure(operator, "jobq", "limited", actor="me", **none).changed
    operator.commit()
    with psycopg.connect(database_url) as connection:
        assert connection.execute("SELECT limited FROM jobq.job WHERE id = %s", (running,)).fetchone() == (True,)
        assert connection.execute("SELECT count(*) FROM jobq.group_ready WHERE queue = 'limited'").fetchone() != (0,)
        connection.execute("DELETE FROM jobq.job WHERE queue = 'limited'")


def one_by_one(operator: psycopg.Connection[Any], database_url: str) -> None:
    with psycopg.connect(database_url) as connection:
        jobs = [add_job(connection, run_in=600), add_job(connection, key="k"), add_finished(connection, "failed")]
        add_attempt(connection, jobs[2])
        worker = add_worker(connection)
    assert operations.run_now(operator, "jobq", jobs[:1], actor="me").done == jobs[:1]
    assert operations.snooze(operator, "jobq", jobs[:2], seconds=60, actor="me").done == jobs[:2]
    assert operations.move(operator, "jobq", jobs[:2], queue="slow", priority=1, actor="me").done == jobs[:2]
    assert operations.delete(operator, "jobq", jobs, actor="me").done == jobs
    assert operations.ask_worker(operator, "jobq", worker, "quiet", actor="me")
    operator.commit()
    schedules(operator)


def schedules(operator: psycopg.Connection[Any]) -> None:
    made = Schedule(name="s", task="t", when=Cron("@daily"))
    assert operations.set_schedule(operator, "jobq", made, actor="me")
    assert not operations.set_schedule(operator, "jobq", made, actor="me", replace=True)
    assert operations.pause_schedule(operator, "jobq", "s", actor="me")
    assert operations.resume_schedule(operator, "jobq", "s", actor="me")
    job = operations.run_schedule(operator, "jobq", "s", actor="me")
    assert queries.schedule_ticks(operator, "jobq", "s") == []
    operations.remove_schedule(operator, "jobq", "s", actor="me")
    assert operations.delete(operator, "jobq", [job], actor="me").done == [job]
    operator.commit()


def in_bulk(operator: psycopg.Connection[Any], database_url: str) -> None:
    asked: list[tuple[str, dict[str, Any]]] = [
        ("snooze", {"seconds": 60}), ("move", {"queue": "slow"}), ("cancel", {}), ("retry", {}), ("delete", {}),
    ]  # fmt: skip
    with psycopg.connect(database_url) as connection:
        ids = [add_job(connection, task="bulk") for _ in range(3)]
    by_id = JobFilter(ids=tuple(ids))
    for action, options in asked:
        made = operations.draft(operator, "jobq", action=action, filter=by_id, options=options, actor="me")
        operations.start(operator, "jobq", made.id, reason="for the test", actor="me")
        operations.pause_operation(operator, "jobq", made.id, actor="me")
        operations.resume_operation(operator, "jobq", made.id, actor="me")
        operator.commit()
        assert operations.run_operation(operator, "jobq", made.id).done == 3
        assert [batch.done for batch in queries.operation_batches(operator, "jobq", made.id)] == [ids]
    dropped = operations.draft(operator, "jobq", action="cancel", filter=by_id, actor="me")
    assert operations.cancel_operation(operator, "jobq", dropped.id, actor="me").state == "cancelled"
    operator.commit()
    with psycopg.connect(database_url) as connection:
        assert connection.execute("SELECT count(*) FROM jobq.job WHERE task = 'bulk'").fetchone() == (0,)


def test_an_operator_does_no_more(login: Login) -> None:
    refused(
        login("operator"),
        [
            "UPDATE jobq.job SET args = '{}'",
            "UPDATE jobq.job SET worker_id = NULL",
            "UPDATE jobq.job_history SET state = 'succeeded'",
            "UPDATE jobq.job_attempt SET message = ''",
            "DELETE FROM jobq.audit",
            "UPDATE jobq.audit SET actor = 'another'",
            "DELETE FROM jobq.group_ready",
            "UPDATE jobq.group_ready SET due_at = now()",
            "DELETE FROM jobq.operation",
            "DELETE FROM jobq.operation_batch",
            "UPDATE jobq.operation_batch SET done = '{}'",
            "UPDATE jobq.worker SET heartbeat_at = now()",
            "DELETE FROM jobq.worker",
            "UPDATE jobq.maintenance_task SET due_at = now()",
            "INSERT INTO jobq.schedule_tick (schedule, tick, job_id) VALUES ('s', now(), 1)",
            "DELETE FROM jobq.schedule_tick",
            "SELECT jobq.drop_partitions('job_history_failed', '0')",
        ],
    )


# --- The file ------------------------------------------------------------------------------------------------------------


def test_run_again_it_takes_back_what_was_given_besides(database_url: str) -> None:
    grant_roles(database_url)
    with psycopg.connect(database_url) as connection:
        connection.execute("GRANT ALL ON ALL TABLES IN SCHEMA jobq TO jobq_viewer, PUBLIC")
        connection.execute("GRANT ALL ON ALL FUNCTIONS IN SCHEMA jobq TO jobq_viewer, PUBLIC")
    grant_roles(database_url)
    with psycopg.connect(database_url) as connection:
        row = connection.execute(
            "SELECT has_table_privilege('jobq_viewer', 'jobq.job', 'INSERT'), "
            "has_function_privilege('jobq_viewer', 'jobq.make_partitions(integer)', 'EXECUTE')"
        ).fetchone()
    assert row == (False, False)


def test_another_schema_has_roles_of_its_own(empty_database_url: str) -> None:
    migrate.upgrade(empty_database_url)
    migrate.upgrade(empty_database_url, "other_jobs")
    grant_roles(empty_database_url)
    grant_roles(empty_database_url, schema="other_jobs")
    grant_roles(empty_database_url, schema="other_jobs", roles="Acme's")
    with psycopg.connect(empty_database_url) as connection:
        for role, here, there in (("jobq", True, False), ("other_jobs", False, True), ("Acme's", False, True)):
            row = connection.execute(
                "SELECT has_schema_privilege(%(role)s, 'jobq', 'USAGE'), has_schema_privilege(%(role)s, 'other_jobs', 'USAGE')",
                {"role": f"{role}_worker"},
            ).fetchone()
            assert row == (here, there)


def test_a_schema_that_is_not_there(empty_database_url: str) -> None:
    with pytest.raises(AssertionError, match=r"no_such.*does not exist"):
        grant_roles(empty_database_url, schema="no_such")
