"""Every bound of the tables is checked before a statement is sent: none costs the caller's transaction."""

from __future__ import annotations

import enum
import math
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import psycopg
import pytest

from jobq import InvalidArguments, InvalidOption, JobQ, JobqError, NewJob, operations
from jobq._core.validation import LONGEST
from jobq.filters import JobFilter
from jobq.job import JobOptions
from jobq.web.auth import users

Conn = psycopg.Connection[Any]
INFINITE = (math.inf, -math.inf, math.nan, 1e300, 10**400, -(10**400))


@pytest.fixture
def q(database_url: str) -> Iterator[JobQ]:
    app = JobQ(database_url)

    @app.task
    def remind(note: str = "") -> None: ...

    yield app
    app.close()


def refuses(call: Callable[..., Any], *wrong: dict[str, Any]) -> Callable[[JobQ, Conn], None]:
    """Return a check that `call` refuses each of these options, with an error of ours that leaves the transaction usable."""

    def check(q: JobQ, conn: Conn) -> None:
        for options in wrong:
            with pytest.raises(JobqError):
                call(q, conn, **options)
            conn.execute("SELECT 1")
            conn.rollback()

    return check


def options(q: JobQ, conn: Conn, **given: Any) -> None:
    if given.get("key_holds") or given.get("key_scope"):
        given["key"] = given.get("key", "k")
    q.tasks["remind"].options(**given).enqueue(conn)


def queue(q: JobQ, conn: Conn, *, name: str = "default", **given: Any) -> None:
    q.queue(name).set(connection=conn, **given)


def group(q: JobQ, conn: Conn, *, limit: Any) -> None:
    q.queue("default").group("g").set(limit=limit, connection=conn)


def new_job(q: JobQ, conn: Conn, *, args: str) -> None:
    q.enqueue_many(conn, [NewJob(JobOptions(task="remind"), args)])


def task(q: JobQ, _conn: Conn, *, name: str) -> None:
    @q.task(name=name)
    def named() -> None: ...


def schedule(q: JobQ, _conn: Conn, **given: Any) -> None:
    q.add_schedule("remind", **{"every": timedelta(hours=1), "name": "s", "actor": "ann", **given})


def draft(q: JobQ, conn: Conn, *, action: str = "retry", ids: tuple[int, ...] = (1,)) -> None:
    operations.draft(conn, "jobq", action=action, filter=JobFilter(ids=ids), actor="ann")


def start(q: JobQ, conn: Conn, *, rate: float) -> None:
    operations.start(conn, "jobq", 1, reason="why", rate=rate, actor="ann")


def user(q: JobQ, conn: Conn, *, name: str = "ann", role: str = "viewer") -> None:
    users.add(conn, "jobq", name, role, "password", actor="bob")


def workflow(q: JobQ, conn: Conn, **given: Any) -> None:
    with q.workflow(**{"name": "order", **given}) as wf:
        q.tasks["remind"].node()
    wf.enqueue(conn)


def signal(q: JobQ, conn: Conn, **given: Any) -> None:
    q.send_signal(conn, 1, given["name"])


def text(name: str, longest: int) -> list[dict[str, Any]]:
    return [{name: value} for value in ("", "x" * (longest + 1), "a\0b", "\ud800", 7, b"x")]


ROWS_OF_OURS = "written by jobq itself, from values of its own"
# Of each constraint: a check that Python refuses what it would refuse; or why no caller's value comes to it.
CONSTRAINTS: dict[str, Callable[[JobQ, Conn], None] | str] = {
    "job.job_state_check": ROWS_OF_OURS,
    "job.job_priority_check": refuses(options, *({"priority": n} for n in (-1, 10, 10**5000, True, 1.0, "5"))),
    "job.job_max_attempts_check": refuses(options, *({"max_attempts": n} for n in (0, 2**31, True, 1.5))),
    "job.job_timeout_check": refuses(
        options, *({"timeout": n} for n in (0, -1, LONGEST * 1.001, timedelta.max, True, "5", *INFINITE))
    ),
    "job.job_queue_check": refuses(options, *text("queue", 100)),
    "job.job_task_check": refuses(task, *text("name", 200)),
    "job.job_run_at_check": refuses(
        options,
        {"run_at": datetime.max.replace(tzinfo=UTC)},
        {"run_at": datetime(9999, 1, 1, tzinfo=UTC)},
        {"run_at": datetime(9998, 12, 31, 23, 0, tzinfo=timezone(timedelta(hours=-12)))},
        {"run_at": datetime.max.replace(tzinfo=timezone(timedelta(hours=-12)))},
        {"run_at": datetime(2030, 1, 1)},
        {"run_at": "2030-01-01"},
        {"delay": LONGEST * 1.001},
        {"delay": -1},
        {"delay": timedelta.max},
        *({"delay": n} for n in INFINITE),
    ),
    "job.job_args_check": refuses(
        new_job,
        *({"args": a} for a in ("[1]", "1", "{", '{"a": NaN}', '{"a": "\\u0000"}', '{"a": "\\ud800"}', "[" * 9999)),
    ),
    "job.job_headers_check": refuses(
        options, *({"headers": h} for h in ([1], "x", {1: 2}, {"a": math.nan}, {"a": "\0"}, {"a": "\ud800"}))
    ),
    "job_key.job_key_key_check": refuses(options, *text("key", 500)),
    "job_key.job_key_holds_check": refuses(options, {"key_holds": "ever"}, {"key_holds": None, "key": "k"}),
    "job_key.job_key_expires_at_check": refuses(
        options, *({"key": "k", "key_period": n} for n in (0, -1, LONGEST * 1.001, timedelta.max, *INFINITE))
    ),
    "job_attempt.job_attempt_outcome_check": ROWS_OF_OURS,
    "queue.queue_max_running_check": refuses(queue, *({"limit": n} for n in (0, -1, 2**31, True, 1.5))),
    "queue.queue_rate_check": refuses(queue, *({"rate": r} for r in ("0/s", "5/0s", "x", "-1/s", 5)), {"burst": 2}),
    "queue.queue_rate_seconds_check": refuses(queue, {"rate": "1/9999999999999s"}, {"group_rate": "1/9999999999999s"}),
    "queue.queue_group_mode_check": refuses(queue, {"groups": "sorted"}, {"groups": 5}),
    "queue.queue_group_limit_check": refuses(queue, {"groups": "limited:0"}, {"groups": "limited:99999999999"}),
    "queue.queue_group_retry_check": refuses(queue, {"groups": "ordered:now"}),
    "queue.queue_group_rate_check": refuses(queue, {"groups": "fair", "group_rate": "0/s"}),
    "rate_state.rate_state_max_running_check": refuses(group, *({"limit": n} for n in (0, -1, True, 2**31))),
    "schedule.schedule_name_check": refuses(schedule, *text("name", 200)),
    "schedule.schedule_when_check": refuses(schedule, {"cron": "* * * * *"}, {"every": None}),
    "schedule.schedule_missed_check": refuses(schedule, {"missed": "none"}),
    "schedule.schedule_source_check": ROWS_OF_OURS,
    "schedule.schedule_max_missed_check": refuses(schedule, {"max_missed": 0}, {"max_missed": 10_001}),
    "schedule.schedule_json_check": refuses(schedule, {"args": [1]}, {"args": {"note": "\0"}}),
    "operation.operation_state_check": ROWS_OF_OURS,
    "operation.operation_action_check": refuses(draft, {"action": "rename"}),
    "operation.operation_filter_check": refuses(draft, {"ids": tuple(range(10**6, 10**6 + 1000))}, {"ids": ()}),
    "operation.operation_rate_check": refuses(start, *({"rate": n} for n in (0, -1, math.inf, math.nan))),
    "web_user.web_user_name_check": refuses(user, *text("name", 100)),
    "web_user.web_user_role_check": refuses(user, {"role": "owner"}),
    "job_signal.job_signal_name_check": refuses(signal, *text("name", 200)),
    "job_signal.job_signal_target_check": ROWS_OF_OURS,
    "job_step.job_step_kind_check": ROWS_OF_OURS,
    "job_step.job_step_state_check": ROWS_OF_OURS,
    "workflow.workflow_name_check": refuses(workflow, *text("name", 200)),
    "workflow.workflow_key_check": refuses(workflow, *text("key", 500)),
    "workflow.workflow_on_failure_check": refuses(workflow, {"on_failure": "stop"}, {"on_failure": None}),
    "workflow.workflow_state_check": ROWS_OF_OURS,
    "workflow.workflow_cancel_as_check": ROWS_OF_OURS,
    "workflow_node.workflow_node_kind_check": ROWS_OF_OURS,
    "workflow_join.workflow_join_kind_check": ROWS_OF_OURS,
    "workflow_turn.workflow_turn_kind_check": ROWS_OF_OURS,
    "worker.worker_state_check": ROWS_OF_OURS,
    "worker.worker_requested_state_check": ROWS_OF_OURS,
}


# What functions, triggers and indexes refuse: a constraint would cost every insert.
OTHERS: dict[str, Callable[[JobQ, Conn], None]] = {
    "expires_in": refuses(
        options,
        *({"expires_in": n} for n in (0, -1, LONGEST * 1.001, timedelta.max, *INFINITE)),
        {"expires_in": 5, "delay": 5},
        {"expires_in": 5, "run_at": datetime.now(UTC) + timedelta(hours=1)},
    ),
    "key": refuses(options, *text("key", 500)),
    "key_scope": refuses(options, {"key_scope": "queue"}, {"key_scope": None}, {"key_scope": ["task"]}),
}


@pytest.mark.parametrize("name", OTHERS)
def test_what_else_is_checked_in_python(q: JobQ, conn: Conn, name: str) -> None:
    OTHERS[name](q, conn)


def test_the_size_of_a_key(q: JobQ, conn: Conn) -> None:
    """A key and the name of its task share an entry of an index."""

    @q.task(name="\N{PILE OF POO}" * 200)
    def long() -> None: ...

    at_most = "\N{PILE OF POO}" * 450
    assert long.options(key=at_most).enqueue(conn).created
    assert long.options(key="\N{PILE OF POO}" * 500, key_scope="global").enqueue(conn).created
    conn.rollback()
    with pytest.raises(InvalidOption, match="2604 bytes together"):
        long.options(key=at_most + "\N{PILE OF POO}")
    # A workflow's key shares an entry with the workflow's name.
    for key, name in ((at_most, "x" * 200), ("k" * 500, "\N{PILE OF POO}" * 200)):
        workflow(q, conn, key=key, name=name)
    with pytest.raises(InvalidOption, match="2800 bytes together"):
        workflow(q, conn, key="\N{PILE OF POO}" * 500, name="\N{PILE OF POO}" * 200)


def constraints(conn: Conn) -> list[str]:
    found = conn.execute(
        "SELECT relname || '.' || conname FROM pg_constraint JOIN pg_class ON pg_class.oid = conrelid "
        "WHERE connamespace = 'jobq'::regnamespace AND contype = 'c' AND NOT relispartition ORDER BY 1"
    ).fetchall()
    conn.rollback()
    return [name for (name,) in found]


def test_every_constraint_has_a_check_in_python(q: JobQ, conn: Conn) -> None:
    found = constraints(conn)
    assert set(found) == set(CONSTRAINTS)
    for name in found:
        check = CONSTRAINTS[name]
        if not isinstance(check, str):
            check(q, conn)


def test_what_a_trigger_refuses_is_refused_before_it(q: JobQ, conn: Conn) -> None:
    """Of groups: migrations/functions/enter_group.sql."""
    refuses(options, *text("group", 200))(q, conn)


def test_every_column_that_callers_fill_may_not_be_null(q: JobQ, conn: Conn) -> None:
    """None for an option means its default; where it has none, it is refused."""
    for given in ({"queue": None}, {"priority": None}, {"max_attempts": None}, {"headers": None}, {"timeout": None}):
        assert q.tasks["remind"].options(**given).enqueue(conn).created  # type: ignore[arg-type]
    for wrong in ({"key_holds": None}, {"key_period": None}, {"on_conflict": None}, {"key_scope": None}):
        with pytest.raises(InvalidOption):
            q.tasks["remind"].options(key="k", **wrong)  # type: ignore[arg-type]


# --- What is within the bounds is stored -------------------------------------------------------------------------------


def test_the_ends_of_the_bounds_are_stored(q: JobQ, conn: Conn) -> None:
    remind = q.tasks["remind"]
    last = datetime(9998, 12, 31, 23, 59, 59, 999_999, tzinfo=UTC)
    for zone in (UTC, timezone(timedelta(hours=23, minutes=59, seconds=59)), timezone(timedelta(microseconds=1))):
        ref = remind.options(run_at=last.astimezone(zone)).enqueue(conn)
        assert conn.execute("SELECT run_at = %s FROM jobq.job WHERE id = %s", (last, ref.id)).fetchall() == [(True,)]
    zone = timezone(timedelta(hours=-23, minutes=-59))
    for past in (
        datetime.min.replace(tzinfo=UTC),
        datetime.min.replace(tzinfo=timezone(timedelta(hours=14))),
        datetime(1, 1, 1, tzinfo=zone),
    ):
        ref = remind.options(run_at=past).enqueue(conn)
        row = conn.execute("SELECT run_at BETWEEN now() AND clock_timestamp() FROM jobq.job WHERE id = %s", (ref.id,))
        assert row.fetchall() == [(True,)]
    for given in (
        {"delay": LONGEST},
        {"delay": 0},
        {"delay": 5e-324},
        {"timeout": LONGEST, "expires_in": LONGEST},
        {"timeout": 5e-324, "expires_in": 5e-324},
        {"key": "\N{PILE OF POO}" * 500, "key_period": LONGEST},
        {"queue": "\N{PILE OF POO}" * 100, "group": "\N{PILE OF POO}" * 200},
        {"queue": "a\nb", "group": "\x01", "key": "\x7f"},
    ):
        assert remind.options(**given).enqueue(conn).created
        assert q.enqueue_many(conn, [remind.options(**given).job(), remind.job()])
    conn.commit()


def test_names_from_an_enumeration_are_stored_as_their_text(q: JobQ, conn: Conn) -> None:
    class Queue(str, enum.Enum):  # noqa: UP042  # its str() is another than that of StrEnum
        MAIL = "mail"

    mail = q.tasks["remind"].options(queue=Queue.MAIL, key=Queue.MAIL, group=Queue.MAIL)
    mail.enqueue(conn)
    q.enqueue_many(conn, [q.tasks["remind"].options(queue=Queue.MAIL).job(), mail.job()])
    assert conn.execute("SELECT queue, key, group_key FROM jobq.job ORDER BY id").fetchall() == [
        ("mail", "mail", "mail"),
        ("mail", None, None),
    ]


def test_arguments_that_are_given_as_text_are_looked_at(q: JobQ) -> None:
    with pytest.raises(InvalidArguments, match="NaN"):
        NewJob(JobOptions(task="remind"), '{"note": NaN}')


# --- In SQL, no value is stored that Python cannot read ----------------------------------------------------------------

IN_SQL = {
    "timeout => '-1 s'": "timeout",
    "timeout => '101 years'": "timeout",
    "key => 'k', key_period => '-1 day'": "key_period",
    "key => 'k', key_period => '0'": "key_period",
    "key => 'k', key_period => NULL": "key_period",
    "key => 'k', key_period => '101 years'": "key_period",
    "key => 'k', key_holds => NULL": "key_holds",
    "key => 'k', key_scope => NULL": "key_scope",
    "on_conflict => NULL": "on_conflict",
    "on_conflict => 'update'": "on_conflict",
    "run_at => 'infinity'": "run_at",
    "run_at => '9999-01-01 00:00+00'": "run_at",
    "delay => '-1 s'": "delay",
    "delay => '101 years'": "delay",
    "expires_in => '0'": "expires_in",
    "expires_in => '101 years'": "expires_in",
    "expires_in => '5 s', delay => '5 s'": "expires_in",
    "expires_in => '5 s', run_at => now() + interval '1 h'": "expires_in",
}


@pytest.mark.parametrize("given", IN_SQL)
def test_the_function_refuses(conn: Conn, given: str) -> None:
    with pytest.raises(psycopg.errors.InvalidParameterValue, match=f"^{IN_SQL[given]} => "):
        conn.execute(f"SELECT jobq.enqueue('t', {given})".encode())


def test_infinite_intervals_are_refused(conn: Conn) -> None:
    if conn.info.server_version < 170000:
        pytest.skip("this server has none")
    for name in ("timeout", "key_period", "delay", "expires_in"):
        for value in ("infinity", "-infinity"):
            with (
                conn.transaction(),
                pytest.raises(psycopg.errors.InvalidParameterValue, match=f"^{name} => "),
                conn.transaction(),
            ):
                conn.execute(f"SELECT jobq.enqueue('t', key => 'k', {name} => '{value}')".encode())


@pytest.mark.parametrize(
    ("column", "value"),
    [
        *(("timeout", value) for value in ("Infinity", "NaN", "1e300", "0")),
        *(("run_at", value) for value in ("infinity", "-infinity", "9999-01-01 00:00+00")),
        ("group_key", ""),
    ],
)
def test_the_table_refuses(conn: Conn, column: str, value: str) -> None:
    with pytest.raises(psycopg.errors.CheckViolation):
        conn.execute(f"INSERT INTO jobq.job (task, {column}) VALUES ('t', '{value}')".encode())
