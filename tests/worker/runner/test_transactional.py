"""Transactional tasks: effects and success commit together, or neither does."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import psycopg
import pytest
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from jobq import JobQ, current_job, operations
from jobq._worker import inline
from jobq._worker.inline import drain
from jobq.task import BaseTask
from jobq.testing import JobqTester
from tests.apps import late_writers, transfers
from tests.support.jobs import Jobs
from tests.support.waiting import wait_until
from tests.support.workers import WorkerProcess

StartWorker = Callable[..., WorkerProcess]
APP = "tests.apps.transfers:q"


@pytest.fixture
def start(jobs: Jobs, worker: StartWorker) -> StartWorker:
    """Starts a worker for transactional tasks; their tables are there."""
    transfers.create(jobs.connection)
    return lambda *args, **options: worker(*args, app=APP, **options)


def effects(jobs: Jobs, job: int) -> list[str]:
    return [row["note"] for row in jobs.all("SELECT note FROM effect WHERE job = %s ORDER BY at", job)]


@pytest.mark.essential
@pytest.mark.parametrize("task", [transfers.act, transfers.act_async])
def test_effect_and_success_commit_together(jobs: Jobs, start: StartWorker, task: BaseTask[..., Any]) -> None:
    job = task.options(key="k", key_holds="until_finished").enqueue(jobs.connection, "done").id
    start()
    ended = jobs.wait(job)
    assert (ended["state"], ended["result"], ended["attempt"], ended["claims"]) == ("succeeded", "done", 1, 1)
    assert effects(jobs, job) == ["done"]
    # In one transaction: the same xmin.
    assert jobs.one(
        "SELECT (SELECT xmin::text FROM effect) = (SELECT xmin::text FROM jobq.job_history WHERE id = %s)", job
    )
    assert jobs.one("SELECT count(*) FROM jobq.job_key") == 0
    assert jobs.one("SELECT started_at < finished_at AND worker_id IS NOT NULL FROM jobq.job_history")


@pytest.mark.parametrize("fails", [False, True])
@pytest.mark.parametrize(
    ("leave", "how"),
    [
        *((late_writers.leave_writer, how) for how in ("connection", "cursor", "block", "session", "job")),
        *((late_writers.leave_writer_async, how) for how in ("connection", "session")),
    ],
    ids=lambda value: value if isinstance(value, str) else value.name,
)
def test_what_a_task_leaves_behind_does_not_write_into_the_next_transaction(
    jobs: Jobs, worker: StartWorker, leave: BaseTask[[str, bool], None], how: str, fails: bool
) -> None:
    transfers.create(jobs.connection)
    worker("--processes", "1", "--concurrency", "1", app="tests.apps.late_writers:q")
    first = leave.enqueue(jobs.connection, how, fails).id
    assert jobs.wait(first)["state"] == ("failed" if fails else "succeeded")
    act = late_writers.act_slowly_async if leave is late_writers.leave_writer_async else late_writers.act_slowly
    second = act.enqueue(jobs.connection).id
    ended = jobs.wait(second)
    assert (ended["state"], ended["claims"]) == ("succeeded", 1), ended["error"]
    assert ended["result"] >= 20, "the writer was at work meanwhile"
    assert effects(jobs, second) == ["before", "after"]
    # What it wrote before its own job ended counts with that.
    assert jobs.one("SELECT count(*) FROM effect WHERE job = %s AND xmin::text = (SELECT max(xmin::text) FROM effect "
                    "WHERE job = %s)", first, second) == 0  # fmt: skip
    if fails:
        assert effects(jobs, first) == []


def test_times_are_those_of_the_execution(jobs: Jobs, start: StartWorker) -> None:
    """now() would be when the transaction began."""
    job = transfers.linger.enqueue(jobs.connection, 0.3).id
    start()
    jobs.wait(job)
    row = jobs.one(
        "SELECT extract(epoch FROM finished_at - started_at) >= 0.3 AND finished_at >= "
        "(SELECT at FROM effect) + interval '0.3 s' FROM jobq.job_history WHERE id = %s",
        job,
    )
    assert row


@pytest.mark.parametrize("how", ["error", "snooze", "crash"])
def test_what_is_not_a_success_leaves_nothing(jobs: Jobs, start: StartWorker, how: str) -> None:
    jobs.connection.execute("CREATE SEQUENCE seen")
    job = transfers.stop.enqueue(jobs.connection, how).id
    if how == "crash":
        jobs.connection.execute("UPDATE jobq.job SET headers = '{\"again\": 1}' WHERE id = %s", (job,))
    start("--max-crashes", "1")
    ended = jobs.wait(job)
    if how == "crash":
        assert (ended["state"], effects(jobs, job)) == ("failed", [])
    else:
        assert (ended["state"], effects(jobs, job)) == ("succeeded", [how])
        assert ended["claims"] == 2


@pytest.mark.parametrize(
    ("how", "state"),
    [("cancel", "cancelled"), ("fail", "failed"), ("exit", "failed")],
)
def test_what_ends_a_job_otherwise_leaves_nothing(jobs: Jobs, start: StartWorker, how: str, state: str) -> None:
    job = transfers.stop.enqueue(jobs.connection, how).id
    start()
    ended = jobs.wait(job)
    assert (ended["state"], ended["attempt"], effects(jobs, job)) == (state, 1, [])


@pytest.mark.parametrize("how", ["nul", "not json"])
def test_a_result_that_cannot_be_stored_undoes_nothing(jobs: Jobs, start: StartWorker, how: str) -> None:
    job = transfers.stop.enqueue(jobs.connection, how).id
    running = start()
    ended = jobs.wait(job)
    assert (ended["state"], ended["attempt"], ended["result"], effects(jobs, job)) == ("succeeded", 1, None, [how])
    assert "stop: result" in ended["error"]
    assert jobs.attempts(job) == []
    wait_until(lambda: "its result was not stored" in running.log, what="the warning")


def test_savepoints_are_the_tasks_own(jobs: Jobs, start: StartWorker) -> None:
    job = transfers.stop.enqueue(jobs.connection, "savepoint").id
    start()
    assert jobs.wait(job)["state"] == "succeeded"
    assert jobs.all("SELECT note FROM effect") == [{"note": "savepoint"}]


@pytest.mark.parametrize(
    ("how", "left"),
    [
        ("commit()", 0),
        ("rollback()", 0),
        ("with", 0),
        ("ROLLBACK", 0),
        # By its own words in SQL, a task can commit what it did before; the job fails, and what comes after is undone.
        ("COMMIT", 1),
        ("COMMIT AND CHAIN", 1),
        ("COMMIT, and go on", 1),
    ],
)
def test_a_task_that_ends_the_transaction_fails(jobs: Jobs, start: StartWorker, how: str, left: int) -> None:
    job = transfers.end_it.enqueue(jobs.connection, how).id
    start()
    ended = jobs.wait(job)
    assert (ended["state"], ended["attempt"], ended["result"]) == ("failed", 1, None)
    assert jobs.attempts(job)[0]["error_type"] == "jobq.errors.TransactionEnded"
    assert "connection.transaction()" in ended["error"]
    assert len(effects(jobs, job)) == left


def test_a_refused_commit_does_nothing(jobs: Jobs, start: StartWorker) -> None:
    job = transfers.end_it.enqueue(jobs.connection, "swallowed commit()").id
    start()
    ended = jobs.wait(job)
    assert (ended["state"], ended["result"], len(effects(jobs, job))) == ("succeeded", "TransactionEnded", 1)


def test_a_closed_connection_is_an_error_like_others(jobs: Jobs, start: StartWorker) -> None:
    job = transfers.end_it.enqueue(jobs.connection, "close()").id
    start()
    ended = jobs.wait(job)
    assert (ended["state"], ended["attempt"], effects(jobs, job)) == ("failed", 3, [])
    assert "closed by the task" in ended["error"]
    assert jobs.wait(transfers.act.enqueue(jobs.connection).id)["claims"] == 1


def test_a_swallowed_error_is_an_error(jobs: Jobs, start: StartWorker) -> None:
    job = transfers.swallow_error.enqueue(jobs.connection).id
    start()
    ended = jobs.wait(job)
    assert (ended["state"], ended["result"], len(effects(jobs, job))) == ("succeeded", 2, 1)
    (attempt,) = jobs.attempts(job)
    assert "a statement failed and the task went on" in attempt["message"]


@pytest.mark.parametrize("task", [transfers.session_act, transfers.session_act_async])
@pytest.mark.parametrize("how", ["plain", "savepoint", "error"])
def test_a_session_on_the_transaction(jobs: Jobs, start: StartWorker, task: BaseTask[..., Any], how: str) -> None:
    # Several, so that one session follows another on one connection.
    found = [task.enqueue(jobs.connection, how).id for _ in range(3)]
    start("--processes", "1", "--concurrency", "1")
    for job in found:
        ended = jobs.wait(job)
        assert (ended["state"], ended["attempt"]) == ("succeeded", 2 if how == "error" else 1)
        assert effects(jobs, job) == [how]
    assert jobs.one("SELECT count(*) FROM effect") == 3


@pytest.mark.parametrize("task", [transfers.session_act, transfers.session_act_async])
@pytest.mark.parametrize("how", ["commit", "rollback"])
def test_a_session_does_not_end_the_transaction(
    jobs: Jobs, start: StartWorker, task: BaseTask[..., Any], how: str
) -> None:
    job = task.enqueue(jobs.connection, how).id
    start()
    ended = jobs.wait(job)
    assert (ended["state"], ended["attempt"], effects(jobs, job)) == ("failed", 1, [])
    assert jobs.attempts(job)[0]["error_type"] == "jobq.errors.TransactionEnded"


def test_session_and_connection_are_one_transaction(jobs: Jobs, start: StartWorker) -> None:
    job = transfers.session_act.enqueue(jobs.connection, "same").id
    start()
    assert jobs.wait(job)["result"] == "both"


def test_a_session_after_a_swallowed_error_is_retried(jobs: Jobs, start: StartWorker) -> None:
    job = transfers.session_act.enqueue(jobs.connection, "swallow").id
    start()
    ended = jobs.wait(job)
    assert (ended["state"], ended["attempt"], len(effects(jobs, job))) == ("succeeded", 2, 1)


def test_further_jobs_commit_with_the_success(jobs: Jobs, start: StartWorker) -> None:
    """The outbox without a table."""
    good = transfers.outbox.enqueue(jobs.connection, [1, 2]).id
    retried = transfers.outbox.enqueue(jobs.connection, [3, -1]).id
    later = transfers.outbox_async.enqueue(jobs.connection, [4]).id
    start("--drain").wait()
    assert [jobs.wait(job)["state"] for job in (good, retried, later)] == ["succeeded"] * 3
    assert [row["note"] for row in jobs.all("SELECT note FROM effect ORDER BY note")] == ["1", "2", "3", "4"]
    # The attempt that failed left no job behind, nor a key.
    assert jobs.one("SELECT count(*) FROM jobq.job_history") == 7


@pytest.mark.parametrize("task", [transfers.too_slow, transfers.too_slow_async])
@pytest.mark.parametrize("in_database", [False, True])
def test_a_timeout_rolls_back(jobs: Jobs, start: StartWorker, task: BaseTask[..., Any], in_database: bool) -> None:
    job = task.enqueue(jobs.connection, in_database).id
    start()
    ended = jobs.wait(job)
    assert (ended["state"], jobs.attempts(job)[0]["outcome"]) == ("failed", "timeout")
    assert effects(jobs, job) == []
    # And the server notices: nothing of it is left to hold locks.
    open_ones = (
        "SELECT count(*) FROM pg_stat_activity WHERE application_name LIKE 'jobq task%%' AND xact_start IS NOT NULL"
    )
    wait_until(lambda: jobs.one(open_ones) == 0, what="the end of the transaction")


@pytest.mark.parametrize(
    ("slow", "quick"), [(transfers.too_slow, transfers.act), (transfers.too_slow_async, transfers.act_async)]
)
def test_a_statement_that_a_timeout_interrupts_leaves_the_slot_usable(
    jobs: Jobs, start: StartWorker, slow: BaseTask[..., Any], quick: BaseTask[..., Any]
) -> None:
    """The connection is in the middle of an answer then: it is given up, and not the runner."""
    running = start("--processes", "1", "--concurrency", "1")
    for _ in range(3):
        interrupted = slow.enqueue(jobs.connection, True).id
        after = quick.enqueue(jobs.connection, "after").id
        ended = jobs.wait(interrupted)
        assert (ended["state"], jobs.attempts(interrupted)[0]["outcome"]) == ("failed", "timeout")
        assert ended["error"].startswith("timed out after 0.3 s")
        assert jobs.wait(after)["state"] == "succeeded"
        assert (effects(jobs, interrupted), effects(jobs, after)) == ([], ["after"])
    assert "a runner" not in running.log


def test_cancelling(database_url: str, jobs: Jobs, start: StartWorker) -> None:
    """An async task is interrupted and undone; one on a thread may go on, and counts if it succeeds."""
    start()
    later = transfers.linger_async.enqueue(jobs.connection, 600.0).id
    now = transfers.linger.enqueue(jobs.connection, 2.0).id
    wait_until(lambda: jobs.one("SELECT count(*) FROM ran") == 2, what="both")
    with psycopg.connect(database_url, autocommit=True) as operator:
        operations.cancel(operator, "jobq", [later, now], actor="test")
    assert (jobs.wait(later)["state"], effects(jobs, later)) == ("cancelled", [])
    ended = jobs.wait(now)["state"]
    assert (ended, len(effects(jobs, now))) in (("succeeded", 1), ("cancelled", 0))


def test_the_next_job_finds_the_session_as_new(jobs: Jobs, start: StartWorker) -> None:
    found = [transfers.litter.enqueue(jobs.connection, str(n)).id for n in range(3)]
    start("--processes", "1", "--concurrency", "1")
    first, second, third = (jobs.wait(job)["result"] for job in found)
    assert first == second == third
    assert first["name"] == "jobq task litter"
    # The database's own settings, not the worker's.
    assert (first["enable_seqscan"], first["plan_cache_mode"]) == ("on", "auto")
    assert first["idle_in_transaction_session_timeout"] == "0"
    limited = jobs.wait(transfers.litter.options(timeout=20).enqueue(jobs.connection, "limited").id)["result"]
    assert limited["idle_in_transaction_session_timeout"] == "25s"
    assert (first["locks"], first["tables"], first["cursors"], first["channels"]) == ("0", "0", "0", "0")


@pytest.mark.parametrize(
    ("leave", "after"), [(transfers.leave_a_thread, transfers.act), (transfers.leave_a_task, transfers.act_async)]
)
def test_what_a_task_leaves_behind_cannot_join_the_next_job(
    jobs: Jobs, start: StartWorker, leave: BaseTask[..., Any], after: BaseTask[..., Any]
) -> None:
    job = leave.options(max_attempts=1).enqueue(jobs.connection).id
    running = start("--processes", "1", "--concurrency", "1")
    assert "still under way" in jobs.wait(job)["error"]
    assert jobs.wait(after.enqueue(jobs.connection, "next").id)["claims"] == 1
    assert "runner ended" not in running.log
    sleeping = "SELECT count(*) FROM pg_stat_activity WHERE query LIKE '%%pg_sleep(60)%%' AND state = 'active'"
    wait_until(lambda: jobs.one(f"{sleeping} AND pid <> pg_backend_pid()") == 0, what="the end of what was left")


def test_a_kept_connection_that_has_died_is_replaced(jobs: Jobs, start: StartWorker) -> None:
    start("--processes", "1", "--concurrency", "1")
    for task in (transfers.act, transfers.act_async, transfers.session_act, transfers.session_act_async):
        assert jobs.wait(task.enqueue(jobs.connection, "first").id)["claims"] == 1
        jobs.all(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
            "WHERE application_name LIKE 'jobq task%%' AND datname = current_database()"
        )
        ended = jobs.wait(task.enqueue(jobs.connection, "again").id)
        assert (ended["state"], ended["claims"]) == ("succeeded", 1)


def test_the_workers_database_is_the_tasks(
    jobs: Jobs, start: StartWorker, database_url: str, empty_database_url: str
) -> None:
    """The application's environment names another database than --database-url."""
    job = transfers.act.enqueue(jobs.connection).id
    start("--database-url", database_url, database_url=empty_database_url)
    assert (jobs.wait(job)["state"], len(effects(jobs, job))) == ("succeeded", 1)


def test_a_connection_where_there_is_none(jobs: Jobs, start: StartWorker) -> None:
    job = transfers.plain.options(max_attempts=1).enqueue(jobs.connection).id
    start()
    assert "@q.task(transactional=True)" in jobs.wait(job)["error"]
    assert jobs.attempts(job)[0]["error_type"] == "jobq.errors.NotTransactional"


def test_finished_are_counted(jobs: Jobs, start: StartWorker) -> None:
    transfers.q.enqueue_many(jobs.connection, [transfers.act.job(str(n)) for n in range(50)])
    running = start("--drain")
    assert running.wait() == 0
    assert '"finished":50' in running.log.replace(" ", "")
    assert "refused" not in running.log
    assert "never arrived" not in running.log


def test_what_ends_while_the_account_is_compared_is_not_given_back(
    database_url: str, jobs: Jobs, start: StartWorker
) -> None:
    """Between its commit and its report no worker holds a job in the database; after its report nothing holds it at all."""
    transfers.q.enqueue_many(jobs.connection, [transfers.act.job(str(n)) for n in range(1500)])
    running = start()
    with psycopg.connect(database_url, autocommit=True) as operator:

        def compared() -> bool:
            # A change of settings makes the worker compare at once.
            operator.execute("NOTIFY jobq, 'queues'")
            return bool(jobs.one("SELECT count(*) = 1500 FROM jobq.job_history"))

        wait_until(compared, timeout=90, what="every end")
    assert "never arrived" not in running.log
    assert jobs.one("SELECT max(claims) FROM jobq.job_history") == 1
    assert jobs.one("SELECT count(*) FROM effect") == 1500


# --- in the test's own process --------------------


q = JobQ()


@q.task(transactional=True)
def note(text: str) -> str:
    job = current_job()
    job.connection.execute("INSERT INTO effect (job, note) VALUES (%s, %s)", (job.id, text))
    if text == "bad":
        raise RuntimeError(text)
    note_async.enqueue(job.session, f"{text}, later")
    return text


@q.task(transactional=True)
async def note_async(text: str) -> str:
    job = current_job()
    await job.async_connection.execute("INSERT INTO effect (job, note) VALUES (%s, %s)", (job.id, text))
    return text


@q.task(transactional=True)
def wrong_kind(of: str) -> object:
    return getattr(current_job(), of)


@q.task(transactional=True)
async def wrong_kind_async(of: str) -> object:
    return getattr(current_job(), of)


@pytest.fixture
def jobq_app() -> JobQ:
    return q


@pytest.fixture(scope="session")
def jobq_server_url(server: Any) -> str:
    return str(server.database_url("postgres"))


@pytest.fixture
def tester(jobq: JobqTester) -> JobqTester:
    transfers.create(jobq.connection)
    return jobq


def test_drain_is_transactional(tester: JobqTester) -> None:
    ref = note.submit("one")
    bad = note.submit("bad")
    done = tester.drain()
    assert (done.succeeded, done.failed, done.retried) == (2, 0, 1)
    assert ref.result(timeout=0) == "one"
    assert tester.run(bad).state == "scheduled"
    rows = tester.connection.execute("SELECT note FROM effect ORDER BY note").fetchall()
    assert rows == [("one",), ("one, later",)]


def test_transactions_are_where_the_drained_jobs_are(tester: JobqTester) -> None:
    """The connection's database, whatever the application's settings say; its password, which a DSN does not tell, too."""
    q.configure(database_url="postgresql://nobody@127.0.0.1:1/nothing")
    url = make_conninfo(tester.database_url, password="secret's")
    with psycopg.connect(url, autocommit=True) as connection:
        note.enqueue(connection, "one")
        assert drain(q, connection).succeeded == 2
        given = conninfo_to_dict(inline._settings(q.settings, connection).database_url or "")
        assert given["password"] == "secret's"
    assert tester.connection.execute("SELECT count(*) FROM effect").fetchone() == (2,)


async def test_drain_is_transactional_where_a_loop_runs(tester: JobqTester) -> None:
    await note.submit_async("one")
    assert tester.drain().succeeded == 2
    assert tester.connection.execute("SELECT count(*) FROM effect").fetchone() == (2,)
    await q.aclose()


@pytest.mark.parametrize(
    ("task", "of", "fix"),
    [
        (wrong_kind, "async_connection", r"a `def` task: use current_job\(\)\.connection"),
        (wrong_kind, "async_session", r"a `def` task: use current_job\(\)\.session"),
        (wrong_kind_async, "connection", r"an async task: use current_job\(\)\.async_connection"),
        (wrong_kind_async, "session", r"an async task: use current_job\(\)\.async_session"),
    ],
)
def test_the_wrong_kind_is_named(tester: JobqTester, task: BaseTask[..., Any], of: str, fix: str) -> None:
    job = task.submit(of)
    tester.drain()
    row = tester.connection.execute("SELECT message FROM jobq.job_attempt WHERE job_id = %s", (job.id,)).fetchone()
    assert row is not None
    assert re.search(fix, row[0])
