"""A batch with a row that the database will not store: that row alone is refused, with the reason; the rest is kept."""

from __future__ import annotations

from uuid import uuid4

import psycopg
import pytest

from jobq._worker.database import connect
from jobq._worker.ipc.messages import Disposition, Failure, Job, Success
from jobq._worker.lanes.cursor import NOWHERE, everything
from jobq._worker.outcomes.store import JobStore
from jobq._worker.statements.results import Settled
from jobq.settings import Settings
from tests.apps import plain as apps
from tests.support.jobs import Jobs

LANES = everything((["default"], [5]))


@pytest.mark.parametrize("bad", [0, 3, 6])
async def test_one_bad_result_is_found_by_halving(database_url: str, jobs: Jobs, bad: int) -> None:
    apps.q.enqueue_many(jobs.connection, [apps.noop.job() for _ in range(7)])
    ledger, worker = JobStore("jobq"), uuid4()
    async with await connect(Settings(database_url=database_url), "test") as connection:
        claimed, _ = await ledger.advance(connection, worker, [], LANES, 7)
        successes = [Success(job.id, job.claims, job.started, b"1", 0.1) for job in claimed.jobs()[0]]
        # Text in JSON, and nothing that jsonb can hold.
        poison = claimed.jobs()[0][bad]
        successes[bad] = Success(poison.id, poison.claims, poison.started, b'"\\u0000"', 0.1)
        done, refused = await ledger.advance(connection, worker, successes, LANES, 7)
        assert (done.accepted, len(done)) == (6, 0)
        (setback,) = refused
        assert (setback.id, setback.ending) == (poison.id, Disposition.SUCCEED)
        assert await ledger.settle(connection, worker, refused) == Settled(tuple(refused))
    ended = jobs.wait(poison.id)
    assert (ended["state"], ended["result"]) == ("succeeded", None)
    assert "the database refused the result" in ended["error"]
    assert jobs.one("SELECT count(*) FROM jobq.job_history WHERE state = 'succeeded' AND error IS NULL") == 6


async def test_a_report_that_cannot_be_stored_is_replaced_by_why(database_url: str, jobs: Jobs) -> None:
    apps.q.enqueue_many(jobs.connection, [apps.noop.job() for _ in range(4)])
    ledger, worker = JobStore("jobq"), uuid4()
    async with await connect(Settings(database_url=database_url), "test") as connection:
        claimed, _ = await ledger.advance(connection, worker, [], LANES, 4)

        jobs.connection.execute("ALTER TABLE jobq.job_attempt ADD CHECK (error_type <> 'Bad')")

        def failed(job: Job, kind: str) -> Failure:
            return Failure(
                job.id, job.claims, job.started, Disposition.FAIL, recorded="failed", error_type=kind, message="plain"
            )

        setbacks = [failed(job, "E" if n != 2 else "Bad") for n, job in enumerate(claimed.jobs()[0])]
        assert len((await ledger.settle(connection, worker, setbacks)).accepted) == 4
    errors = [row["error"] for row in jobs.all("SELECT error FROM jobq.job_history ORDER BY id")]
    assert [error == "plain" for error in errors] == [True, True, False, True]
    assert "cannot be stored" in errors[2]


async def test_a_late_outcome_is_refused(database_url: str, jobs: Jobs) -> None:
    """The fence: another worker, or another execution by this one, writes nothing."""
    job = apps.noop.enqueue(jobs.connection).id
    ledger, worker = JobStore("jobq"), uuid4()
    async with await connect(Settings(database_url=database_url), "test") as connection:
        claimed, _ = await ledger.advance(connection, worker, [], LANES, 1)
        [(executed,), _] = claimed.jobs()
        claims, at = executed.claims, executed.started
        others = ((uuid4(), claims, at), (worker, claims - 1, at), (worker, claims + 1, at), (worker, claims, at - 1))
        for late, number, started in others:
            success = Success(job, number, started, b"1", 0.1)
            done, _ = await ledger.advance(connection, late, [success], NOWHERE, 0)
            assert done.accepted == 0
            setback = Failure(job, number, started, Disposition.FAIL)
            assert await ledger.settle(connection, late, [setback]) == Settled(refused=(setback,))
    assert jobs.live(job) is not None


async def test_an_error_of_another_kind_is_not_taken_for_a_bad_row(database_url: str) -> None:
    async with await connect(Settings(database_url=database_url), "test") as connection:
        with pytest.raises(psycopg.errors.UndefinedTable):
            await JobStore("nosuch").advance(connection, uuid4(), [], LANES, 1)


async def test_an_attempt_whose_log_is_refused_is_recorded_without_it(database_url: str, jobs: Jobs) -> None:
    """At once, and not when the database is asked for the same a second time: that would never end."""
    apps.q.enqueue_many(jobs.connection, [apps.noop.job() for _ in range(2)])
    jobs.connection.execute("ALTER TABLE jobq.job_attempt ADD CHECK (log NOT LIKE '%%secret%%')")
    store, worker = JobStore("jobq"), uuid4()
    async with await connect(Settings(database_url=database_url), "test") as connection:
        claimed, _ = await store.advance(connection, worker, [], LANES, 2)
        first, second = claimed.jobs()[0]
        setbacks = [
            Failure(
                job.id, job.claims, job.started, Disposition.FAIL,
                recorded="failed", error_type="E", message="plain", log=log,
            )
            for job, log in ((first, "a secret"), (second, "nothing"))
        ]  # fmt: skip
        settled = await store.settle(connection, worker, setbacks)
        assert (len(settled.accepted), settled.unwritten, settled.error) == (2, (), None)
    assert jobs.one("SELECT count(*) FROM jobq.job") == 0
    found = jobs.all("SELECT job_id, log, message FROM jobq.job_attempt ORDER BY job_id")
    assert [(row["job_id"], row["log"]) for row in found] == [(first.id, None), (second.id, "nothing")]
    assert "cannot be stored" in found[0]["message"]
