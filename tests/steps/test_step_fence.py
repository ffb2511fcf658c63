"""Which execution may store steps: the statements of `sql/steps/`, for jobs that are put back and claimed again meanwhile."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from typing import Any

import psycopg
import pytest

from jobq.steps.store import NewStep, StepKey
from tests.support.jobs import Jobs
from tests.support.waiting import wait_until
from tests.support.workflows.waits import Execution, add, fetch, send

Conn = psycopg.Connection[Any]


def step(name: str = "work", state: str = "done", result: str | None = "1", **more: Any) -> NewStep:
    return NewStep(key=StepKey("run", name, "0" * 16, 0), place=1, state=state, result=result, **more)


@pytest.fixture
def db(jobs: Jobs, database_url: str) -> Iterator[Conn]:
    with psycopg.connect(database_url, autocommit=True) as connection:
        yield connection


@pytest.fixture
def twice(db: Conn) -> tuple[Execution, Execution]:
    """Two executions of one job: the first has lost it to the second."""
    [job] = add(db)
    former = Execution.of(db, job)
    former.asked = "lost"
    former.put_back(db)
    later = Execution.of(db, job)
    assert later.holder is not None
    former.over = False
    return former, later


def stored(db: Conn) -> list[tuple[str, str, Any]]:
    return db.execute("SELECT name, state, result FROM jobq.job_step ORDER BY name").fetchall()


def test_an_execution_that_has_lost_its_job_stores_nothing(db: Conn, twice: tuple[Execution, Execution]) -> None:
    former, later = twice
    send(db, former.job)
    assert not former.write(db, step())
    assert not former.commit_steps(db, step())
    assert former.ask(db) == "lost"
    assert stored(db) == []
    assert db.execute("SELECT count(*) FROM jobq.job_signal WHERE taken_at IS NOT NULL").fetchone() == (0,)
    assert later.write(db, step())
    assert later.ask(db) == "done"


def test_what_is_written_again_after_a_lost_connection_is_accepted(
    db: Conn, twice: tuple[Execution, Execution]
) -> None:
    _, later = twice
    failed = step("broken", "failed", None, error='{"type": "x:Y", "message": "no"}')
    for _ in range(2):
        assert later.write(db, failed, step())
    assert [(name, state) for name, state, _ in stored(db)] == [("broken", "failed"), ("work", "done")]


@pytest.mark.parametrize("other", [step(result="2"), step(state="failed", result=None, error='{"message": "no"}')])
def test_a_step_that_an_earlier_execution_has_stored_otherwise_is_refused(
    db: Conn, database_url: str, twice: tuple[Execution, Execution], other: NewStep
) -> None:
    """Its last statement was still under way when the job was claimed again: a replay sees that end and no other."""
    _, later = twice
    assert later.write(db, step(result="1"))
    assert not later.write(db, step("next"), other)
    assert stored(db)[-1] == ("work", "done", 1)


def test_two_executions_that_commit_one_step_have_its_effects_once(
    db: Conn, database_url: str, twice: tuple[Execution, Execution]
) -> None:
    """The transaction of the first goes on after it has lost the job; the second waits for its end."""
    _, later = twice
    db.execute("CREATE TABLE public.effects (value integer)")
    counts: list[bool] = []
    with psycopg.connect(database_url) as first, psycopg.connect(database_url) as second:
        first.execute("INSERT INTO public.effects VALUES (1)")
        # As the first did while it held the job.
        assert Execution(later.job, later.holder).commit_steps(first, step())
        second.execute("INSERT INTO public.effects VALUES (2)")

        def commit() -> None:
            counts.append(later.commit_steps(second, step(result="2")))
            second.rollback() if not counts[0] else second.commit()

        thread = threading.Thread(target=commit)
        thread.start()
        waits = "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND pid = %s"
        wait_until(lambda: db.execute(waits, (second.info.backend_pid,)).fetchone() == (1,), what="the second's wait")
        first.commit()
        thread.join(30)
    assert counts == [False]
    assert db.execute("SELECT value FROM public.effects").fetchall() == [(1,)]
    assert stored(db) == [("work", "done", 1)]


def test_a_request_holds_back_the_end_of_its_execution(db: Conn, database_url: str) -> None:
    """The end is left for the next try, as for every job that is locked: nothing waits for the request."""
    [job] = add(db)
    one = Execution.of(db, job)
    with psycopg.connect(database_url) as connection:
        assert one.ask(connection) == "waiting"
        one.put_back(db)
        assert one.left
    one.again(db)
    assert one.over


def test_a_child_whose_run_is_gone_has_ended(db: Conn) -> None:
    """Or its parent would be woken again and again."""
    [(state, result, error)] = fetch(db, "step_child", {"id": 4711})
    assert (state, result) == ("deleted", None)
    assert "retention" in error
