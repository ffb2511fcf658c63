"""Eager mode and the fake job: what is enqueued runs at once, without a database."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from jobq import (
    Backoff,
    ConfigurationError,
    Fail,
    InvalidArguments,
    JobFailed,
    JobNotFound,
    JobQ,
    KeyConflict,
    NotTransactional,
    ResultTimeout,
    Retry,
    Snooze,
    current_job,
)
from jobq.testing import EagerJobs, eager, fake_job

q = JobQ("postgresql://nobody@127.0.0.1:1/nothing")
ran: list[Any] = []


@pytest.fixture(autouse=True)
def nothing_ran() -> None:
    ran.clear()


@pytest.fixture
def jobq_app() -> JobQ:
    return q


@q.task(max_attempts=3, backoff=Backoff(base=3600, cap=3600))
def send(address: str, at: datetime | None = None) -> list[str]:
    job = current_job()
    ran.append((address, job.attempt))
    job.progress(1, 2)
    match address:
        case "broken":
            raise ConnectionError("the mail server is away")
        case "flaky" if job.attempt < 3:
            raise Retry(after=3600)
        case "refused":
            raise Fail("no such address")
        case "later" if len(ran) == 1:
            raise Snooze(60)
    return [address, *([at.isoformat()] if at else [])]


@q.task
async def fan_out(addresses: list[str]) -> int:
    await asyncio.sleep(0)
    for address in addresses:
        await send.submit_async(address)
    return len(addresses)


@q.task(transactional=True)
def pay(amount: int) -> None: ...


def test_a_job_runs_when_it_is_enqueued(jobq_eager: EagerJobs) -> None:
    when = datetime(2026, 1, 2, tzinfo=UTC)
    ref = send.options(delay=3600).enqueue(object(), "ann", at=when)  # type: ignore[arg-type]
    assert ran == [("ann", 1)]
    assert ref.result() == ["ann", "2026-01-02T00:00:00+00:00"]
    assert (ref.status(), ref.progress(), ref.error()) == ("succeeded", (1, 2), None)
    job = jobq_eager.assert_enqueued(send, address="ann", at=when)
    assert (job.state, job.attempt, job.options.delay) == ("succeeded", 1, 3600)
    jobq_eager.refute_enqueued(send, address="bob")
    with pytest.raises(AssertionError, match=r"no job of task 'send' with .*bob.*there were: send"):
        jobq_eager.assert_enqueued(send, address="bob")


def test_errors_are_tried_again_at_once_up_to_the_last_attempt(jobq_eager: EagerJobs) -> None:
    ref = send.submit("broken")
    assert ran == [("broken", 1), ("broken", 2), ("broken", 3)]
    assert ref.error() == "ConnectionError: the mail server is away"
    with pytest.raises(JobFailed, match="failed: ConnectionError: the mail server is away"):
        ref.result()
    assert isinstance(jobq_eager.jobs[0].exception, ConnectionError)
    assert send.submit("flaky").result() == ["flaky"]
    assert send.submit("refused").status() == "failed"
    assert len(ran) == 3 + 3 + 1


def test_errors_propagate_where_that_is_wanted() -> None:
    with eager(q, propagate=True) as jobs:
        with pytest.raises(ConnectionError, match="away"):
            send.submit("broken")
        assert jobs.jobs[0].state == "failed"


def test_arguments_are_checked(jobq_eager: EagerJobs) -> None:
    with pytest.raises(InvalidArguments):
        send.submit(3)  # type: ignore[arg-type]
    assert jobq_eager.jobs == []


async def test_async_tasks_run_on_the_running_loop(jobq_eager: EagerJobs) -> None:
    ref = await fan_out.submit_async(["ann", "bob"])
    assert await ref.result_async() == 2
    assert [job.task for job in jobq_eager.jobs] == ["fan_out", "send", "send"]
    assert await q.ref(jobq_eager.jobs[1].id).status_async() == "succeeded"


def test_async_tasks_run_without_a_loop(jobq_eager: EagerJobs) -> None:
    assert fan_out.submit(["ann"]).result() == 1
    assert ran == [("ann", 1)]


async def test_jobs_that_run_at_the_same_time_keep_their_exceptions() -> None:
    """The second attempt of the first job begins before the end of the second job is recorded."""
    own = JobQ()

    @own.task(max_attempts=2, backoff=[0])
    async def twice(name: str) -> None:
        raise ValueError(name)

    @own.task(max_attempts=1)
    async def once(name: str) -> None:
        raise ValueError(name)

    with eager(own) as jobs:
        await asyncio.gather(twice.submit_async("first"), once.submit_async("second"))
    assert [str(job.exception) for job in jobs.jobs] == ["first", "second"]


def test_recorded_jobs_wait() -> None:
    with eager(q, run=False) as jobs:
        first, second = q.enqueue_many(object(), [send.job("ann"), send.job("later")])  # type: ignore[arg-type]
        assert (first.status(), ran) == ("ready", [])
        with pytest.raises(ResultTimeout, match="job 1 is still ready: it is due"):
            first.result()
        assert second.cancel("not wanted") is True
        assert jobs.drain() == 1
        assert first.result() == ["ann"]
        assert first.cancel() is False
        assert (second.status(), second.error()) == ("cancelled", "cancelled by the test: not wanted")
        pay.submit(3)
        assert jobs.jobs[-1].state == "ready"


def test_a_snoozed_job_stays(jobq_eager: EagerJobs) -> None:
    ref = send.submit("later")
    assert (ref.status(), jobq_eager.jobs[0].attempt) == ("ready", 0)
    jobq_eager.drain()
    assert ref.result() == ["later"]


def test_keys(jobq_eager: EagerJobs) -> None:
    keyed = send.options(key="one")
    ref = keyed.submit("ann")
    again = keyed.submit("bob")
    assert (again.id, again.created, ran) == (ref.id, False, [("ann", 1)])
    with pytest.raises(KeyConflict):
        send.options(key="one", on_conflict="raise").submit("bob")
    finished = send.options(key="two", key_holds="until_finished")
    assert finished.submit("ann").id != finished.submit("ann").id
    with eager(q, run=False) as jobs:
        debounced = send.options(key="three", key_holds="until_started", on_conflict="replace")
        debounced.submit("old")
        assert debounced.submit("new").replaced is True
        jobs.drain()
        assert ran[-1] == ("new", 1)


def test_what_needs_a_database_says_so(jobq_eager: EagerJobs) -> None:
    with pytest.raises(NotTransactional, match="'pay' is transactional and needs a database"):
        pay.submit(3)
    with pytest.raises(ConfigurationError, match="eager mode has no database"), q.connection():
        pass
    with pytest.raises(JobNotFound):
        q.ref(99).status()


def test_a_recorded_transactional_job_is_refused_before_any_job_runs() -> None:
    with eager(q, run=False) as jobs:
        send.submit("ann")
        pay.submit(3)
        with pytest.raises(NotTransactional, match=r"drain: job 2 is of task 'pay', which is transactional and needs"):
            jobs.drain()
        assert [(job.state, job.attempt) for job in jobs.jobs] == [("ready", 0), ("ready", 0)]


def test_afterwards_everything_is_as_before() -> None:
    before = dict(vars(q))
    with eager(q), eager(q, run=False):
        assert vars(q) != before
    assert vars(q) == before


def test_a_fake_job() -> None:
    with fake_job(attempt=3, headers={"tenant": "acme"}, tick=datetime(2026, 1, 2, tzinfo=UTC)) as fake:
        assert send("ann") == ["ann"]
        assert ran == [("ann", 3)]
        assert fake.progress == [(1, 2)]
        job = current_job()
        assert (job.headers["tenant"], job.tick, job.cancelled) == ("acme", datetime(2026, 1, 2, tzinfo=UTC), False)
        fake.cancel()
        assert job.cancelled is True
        with pytest.raises(NotTransactional, match=r"define it with @q\.task"):
            _ = job.connection
    marker: Any = object()
    with fake_job(connection=marker):
        assert current_job().connection is marker
        with pytest.raises(NotTransactional, match="was given connection only; pass session="):
            _ = current_job().session


async def test_a_fake_job_of_an_async_task() -> None:
    with fake_job(deadline=datetime.now(UTC) + timedelta(seconds=5)) as fake, eager(q):
        assert await fan_out(["ann"]) == 1
        assert current_job() is fake.current


def test_without_pytest() -> None:
    code = (
        "import sys; sys.modules['pytest'] = None\n"
        "from jobq import JobQ, current_job\n"
        "from jobq.testing import eager, fake_job\n"
        "q = JobQ()\n"
        "@q.task\n"
        "def double(n: int) -> int: return 2 * n\n"
        "with eager(q): assert double.submit(4).result() == 8\n"
        "with fake_job(attempt=2): assert current_job().attempt == 2\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)
