"""References: progress, errors, cancelling, by id, and what a timeout tells."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import psycopg
import pytest

from jobq import InvalidOption, JobBusy, JobNotFound, JobQ, ResultTimeout
from jobq._app import lookups
from jobq._worker.inline import drain
from tests.apps import plain as apps
from tests.support.jobs import Jobs
from tests.support.waiting import wait_until
from tests.support.workers import WorkerProcess

Conn = psycopg.Connection[Any]


@pytest.fixture
def q(database_url: str) -> Iterator[JobQ]:
    app = JobQ(database_url)

    @app.task(backoff=[3600])
    def send(address: str) -> list[str]:
        if address == "broken":
            raise ConnectionError("the mail server is away")
        if address == "silent":
            raise KeyError
        return [address]

    yield app
    app.close()


def test_a_job_is_found_by_its_id(q: JobQ, db: Conn) -> None:
    done = q.tasks["send"].submit("ann")
    drain(q, db)
    assert q.ref(done.id).result(timeout=5) == ["ann"]
    assert q.ref(done.id).status() == "succeeded"
    assert (q.ref(done.id).error(), q.ref(done.id).progress()) == (None, None)
    with pytest.raises(JobNotFound, match="job 4711 is neither live nor in history"):
        q.ref(4711).error()
    with pytest.raises(JobNotFound):
        q.ref(4711).cancel()
    for job_id in ("7", None, 1.0, True, -1, 2**63):
        with pytest.raises(InvalidOption, match="job_id"):
            q.ref(job_id)  # type: ignore[arg-type]
        with pytest.raises(InvalidOption, match="job_id"):
            q.tasks["send"].ref(job_id)  # type: ignore[arg-type]


async def test_a_failed_job_tells_its_error_also_while_it_will_be_tried_again(q: JobQ, db: Conn) -> None:
    ref = q.tasks["send"].submit("broken")
    assert ref.error() is None
    with pytest.raises(
        ResultTimeout, match=r"still ready after 0 s: it is due and no worker has started it; it goes on"
    ):
        ref.result(timeout=0)
    drain(q, db)
    assert ref.error() == await ref.error_async() == "ConnectionError: the mail server is away"
    told = (
        f"job {ref.id} is still ready after 0 s: it has failed 1 of 10 times; it is tried again in 3600 s; "
        "its last error: ConnectionError: the mail server is away; it goes on"
    )
    with pytest.raises(ResultTimeout) as raised:
        ref.result(timeout=0)
    assert str(raised.value) == told
    with pytest.raises(ResultTimeout, match="its last error: ConnectionError"):
        await ref.result_async(timeout=0)
    last = q.tasks["send"].options(max_attempts=1).submit("silent")
    drain(q, db)
    assert (last.status(), last.error()) == ("failed", "KeyError")
    await q.aclose()


def test_a_job_that_starts_later_says_when(q: JobQ) -> None:
    ref = q.tasks["send"].options(delay=600).submit("ann")
    with pytest.raises(ResultTimeout, match=r"it starts in (599|600) s; it goes on"):
        ref.result(timeout=0)


async def test_a_job_that_waits_is_cancelled(q: JobQ, db: Conn) -> None:
    first, second = q.tasks["send"].submit("ann"), q.tasks["send"].options(delay=60).submit("bob")
    assert first.cancel("the customer left") is True
    assert await second.cancel_async() is True
    assert (first.status(), second.status()) == ("cancelled", "cancelled")
    error = first.error()
    assert error is not None
    assert error.endswith(": the customer left")
    assert first.cancel() is False
    assert await second.cancel_async() is False
    audit = db.execute("SELECT action, target, reason FROM jobq.audit ORDER BY id").fetchall()
    assert audit == [("cancel", {"ids": [first.id]}, "the customer left"), ("cancel", {"ids": [second.id]}, None)]
    await q.aclose()


async def test_a_job_that_somebody_has_locked_is_not_waited_for(
    q: JobQ, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lookups, "_PAUSE", 0.01)
    ref = q.tasks["send"].submit("ann")
    with psycopg.connect(database_url) as other:
        other.execute("SELECT FROM jobq.job WHERE id = %s FOR UPDATE", (ref.id,))
        with pytest.raises(JobBusy, match=f"job {ref.id}: .* try again"):
            ref.cancel()
        with pytest.raises(JobBusy):
            await ref.cancel_async()
    assert ref.cancel() is True
    await q.aclose()


def test_a_running_job_tells_its_progress_and_is_asked_to_stop(
    q: JobQ, jobs: Jobs, worker: Callable[..., WorkerProcess]
) -> None:
    ref = q.ref(apps.counted.enqueue(jobs.connection).id)
    worker("--processes", "1")
    progress = wait_until(ref.progress, timeout=60, what="progress")
    assert progress is not None
    assert (progress.done, progress.total, progress.fraction) == (3, 12, 0.25)
    with pytest.raises(ResultTimeout, match="is still running after 0 s: it runs, attempt 1 of 10"):
        ref.result(timeout=0)
    assert ref.cancel("enough") is True
    assert jobs.wait(ref.id)["state"] == "cancelled"
    assert ref.progress() is None
