"""Durable tasks by the roles of deploy/roles.sql: who may run them and send signals to them, and no more."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import psycopg
import pytest

from jobq import SignalNotSent
from jobq._postgres.sql import statement
from tests.apps import durable as apps
from tests.support.jobs import Jobs
from tests.support.servers.roles import Login, logins
from tests.support.waiting import wait_until
from tests.support.workers import WorkerProcess

DENIED = psycopg.errors.InsufficientPrivilege
q = apps.q


@pytest.fixture
def login(database_url: str) -> Iterator[Login]:
    with logins(database_url) as made:
        yield made


@pytest.fixture
def producer(login: Login) -> Iterator[str]:
    """The URL of a producer, which the application has."""
    url = login("producer")
    q.configure(database_url=url)
    yield url
    q.close()


def refused(connection: psycopg.Connection[tuple[object, ...]], statements: list[str]) -> None:
    for each in statements:
        with pytest.raises(DENIED):
            connection.execute(each.encode())


def test_a_producer_begins_and_signals_and_a_worker_runs_it_to_the_end(
    jobs: Jobs, login: Login, producer: str, worker: Callable[..., WorkerProcess], tmp_path: Path
) -> None:
    """Steps, transactional ones with the worker's rights on the application's table, children, sleeps and signals."""
    tmp_path.chmod(0o777)
    path = str(tmp_path / "trace")
    jobs.connection.execute("CREATE TABLE public.effects (value integer)")
    jobs.connection.execute("GRANT SELECT, INSERT ON public.effects TO jobq_worker")
    running = worker("--processes", "1", app="tests.apps.durable:q", database_url=login("worker"))
    with psycopg.connect(producer, autocommit=True) as connection:
        ends = [
            (apps.effects.enqueue(connection, 2, True), 2),
            (apps.effects_async.enqueue(connection, 2), 2),
            (apps.parent.enqueue(connection, 20), 41),
            (apps.parent_async.enqueue(connection, [1, 2]), [2, 4]),
            (apps.sleeper.enqueue(connection, path, 0.2), "awake"),
        ]
        waiting = apps.approve.enqueue(connection, path + "2")
        q.send_signal(connection, waiting, "approval", apps.Approval("ada"))
        both = apps.together.enqueue(connection, path + "3")
        connection.execute("SELECT jobq.send_signal(%s, 'approval', '{\"by\": \"bob\"}')", (both.id,))
        with q.workflow("waits") as wf:
            node = apps.approve.node(path + "4")
        run = wf.enqueue(connection, node)
        q.send_signal(connection, run, "approval", apps.Approval("eve"))
    for job, expected in ends:
        assert job.result(timeout=60) == expected, running.log
    assert waiting.result(timeout=60) == "approved by ada"
    assert both.result(timeout=60) == [1, "bob", 8]
    assert run.result(timeout=60) == "approved by eve"
    with pytest.raises(SignalNotSent):
        q.send_signal(None, waiting, "approval", apps.Approval("late"))
    rows = jobs.all("SELECT value FROM public.effects ORDER BY value")
    assert [row["value"] for row in rows] == [0, 0, 1, 1]
    wait_until(lambda: not jobs.one("SELECT count(*) FROM jobq.job_wakeup"), what="no wake left")
    running.terminate()
    assert running.wait() == 0, running.log
    for sign in ("permission denied", "must be owner", "InsufficientPrivilege"):
        assert sign not in running.log


def test_a_transactional_step_has_the_workers_rights_and_no_more(
    jobs: Jobs, login: Login, producer: str, worker: Callable[..., WorkerProcess]
) -> None:
    jobs.connection.execute("CREATE TABLE public.effects (value integer)")
    worker("--processes", "1", app="tests.apps.durable:q", database_url=login("worker"))
    job = apps.effects.options(max_attempts=1).enqueue(psycopg.connect(producer, autocommit=True), 1)
    wait_until(lambda: jobs.finished(job.id), what="the end of the job")
    assert "permission denied for table effects" in str((jobs.finished(job.id) or {})["error"])
    assert jobs.one("SELECT count(*) FROM jobq.job_step") == 0


@pytest.mark.parametrize(
    ("role", "more"),
    [
        (
            "producer",
            [
                "SELECT payload FROM jobq.job_signal",
                "SELECT result FROM jobq.job_step",
                "SELECT id FROM jobq.job_wakeup",
                "INSERT INTO jobq.job_wakeup (job_id) VALUES (1)",
                "DELETE FROM jobq.job_wakeup",
            ],
        ),
        ("worker", ["UPDATE jobq.workflow SET state = 'succeeded'", "UPDATE jobq.job_signal SET job_id = 1"]),
        ("viewer", ["SELECT jobq.send_signal(1, 'n')", "DELETE FROM jobq.job_wakeup"]),
        ("operator", ["UPDATE jobq.job_step SET result = '2'", "DELETE FROM jobq.job_wakeup"]),
        (None, ["SELECT jobq.send_signal(1, 'n')", "SELECT * FROM jobq.job_step", "SELECT * FROM jobq.job_signal"]),
    ],
)  # fmt: skip
def test_nobody_does_more(login: Login, role: str | None, more: list[str]) -> None:
    inner = [
        "INSERT INTO jobq.job_signal (job_id, name, payload) VALUES (1, 'n', '1')",
        "UPDATE jobq.job_signal SET payload = '2'",
    ]
    steps = ["UPDATE jobq.job_step SET result = '2'", "DELETE FROM jobq.job_step"]
    with psycopg.connect(login(role), autocommit=True) as connection:
        refused(connection, [*inner, *more, *([] if role in ("worker", "operator") else steps)])


def test_a_worker_may_do_what_its_statements_need(login: Login) -> None:
    """Those of the wake; the others are above."""
    with psycopg.connect(login("worker"), autocommit=True) as connection:
        values = {"most": 1, "left_out": [], "only": None, "channel": "jobq"}
        assert connection.execute(statement("wake_waiting", "jobq").query, values).fetchall() == [(0, 0, [])]
        assert connection.execute(statement("wakeups_left", "jobq").query, values).fetchall() == []
