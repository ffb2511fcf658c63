"""Work that was done is a success, whatever it returns; work that was returned instead of done is not."""

from __future__ import annotations

import json
import logging
import random
import subprocess
import sys
from collections.abc import Callable, Iterator
from datetime import date
from typing import Any

import psycopg
import pytest
from flask.testing import FlaskClient
from pydantic import BaseModel, Field

from jobq import InvalidArguments, JobQ, ResultError
from jobq._core.arguments import Arguments
from jobq.errors import TaskDefinitionError
from jobq.testing import JobqTester
from tests.support import results
from tests.support.jobs import Jobs
from tests.support.pairs import Form, pairs
from tests.support.workers import WorkerProcess

StartWorker = Callable[..., WorkerProcess]
APP = "tests.support.results:q"
SAID = {
    "charge": "result=True: Input should be a valid integer; the return annotation says otherwise",
    "seen": "valid tuple",
    "nothing": "result=17: Input should be None",
    "large": "2000002 bytes as JSON, and at most 1048576",
    "not_a_number": "JSON has no NaN",
    "nul": "NUL character",
    "untyped": "result['pair']=(1, 2) (tuple) would be read as [1, 2] (list)",
    "an_object": "SystemExit",
    "subclass": "(Paid) would be read as Order(id=1)",
    "exits": "a serializer that ends its process",
    "charge_async": "result=True",
    "apart": "result='one'",
    "pay": "result=True",
    "pay_async": "result='much'",
}


@pytest.fixture
def app(database_url: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[JobQ]:
    monkeypatch.setenv("RESULTS_URL", database_url)
    before = results.q.settings
    results.q.configure(database_url=database_url)
    yield results.q
    results.q.close()
    results.q.configure(database_url=before.database_url)


@pytest.fixture
def tester(app: JobQ, database_url: str) -> Iterator[JobqTester]:
    made = JobqTester(app, database_url)
    results.create(made.connection)
    yield made
    made.close()


def works(connection: psycopg.Connection[Any]) -> list[str]:
    return [row[0] for row in connection.cursor(row_factory=psycopg.rows.tuple_row).execute("SELECT note FROM done")]


def test_a_worker_records_the_success(jobs: Jobs, app: JobQ, worker: StartWorker) -> None:
    results.create(jobs.connection)
    refs = {name: task.enqueue(jobs.connection) for name, task in results.UNSTORED.items()}
    running = worker("--drain", app=APP)
    assert running.wait() == 0
    for name, ref in refs.items():
        ended = jobs.wait(ref.id)
        assert (ended["state"], ended["attempt"], ended["result"]) == ("succeeded", 1, None), name
        assert SAID[name] in ended["error"], name
        assert jobs.attempts(ref.id) == [], name
        with pytest.raises(ResultError, match=f"job {ref.id} succeeded, and its result was not stored: "):
            ref.result(timeout=5)
        assert ref.status() == "succeeded"
    assert sorted(works(jobs.connection)) == sorted(results.UNSTORED)
    assert running.log.count("a job succeeded, and its result was not stored") >= 5


def test_a_drain_records_the_success(tester: JobqTester, caplog: pytest.LogCaptureFixture) -> None:
    refs = {name: task.enqueue(tester.connection) for name, task in results.UNSTORED.items()}
    with caplog.at_level(logging.WARNING, logger="jobq.worker"):
        done = tester.drain()
    assert (done.succeeded, done.failed, done.retried) == (len(refs), 0, 0)
    assert sorted(works(tester.connection)) == sorted(results.UNSTORED)
    for name, ref in refs.items():
        with pytest.raises(ResultError) as raised:
            ref.result(timeout=0)
        assert SAID[name] in str(raised.value)
        assert f"job {ref.id}: " in caplog.text
    assert caplog.text.count("its result was not stored") == len(refs)


async def test_it_is_told_asynchronously(tester: JobqTester) -> None:
    ref = await results.charge.submit_async()
    assert tester.drain().succeeded == 1
    with pytest.raises(ResultError, match="its result was not stored"):
        await ref.result_async(timeout=0)
    await results.q.aclose()


def test_the_terminal_and_the_page_show_it(tester: JobqTester, database_url: str, client: FlaskClient) -> None:
    ref = results.charge.enqueue(tester.connection)
    tester.drain()

    def shown(*arguments: str) -> str:
        command = [sys.executable, "-m", "jobq", "jobs", *arguments, "--database-url", database_url]
        return subprocess.run(command, capture_output=True, text=True, check=True, timeout=60).stdout

    assert "not stored: charge: result=True" in " ".join(shown("show", str(ref.id)).split())
    assert json.loads(shown("show", str(ref.id), "--json"))["error"].startswith("charge: result=True")
    assert "charge: result=True" in shown("list", "--state", "succeeded")
    page = client.get(f"/jobs/{ref.id}").text
    assert "The job succeeded, but its result was not stored." in page
    assert "Input should be a valid integer" in page
    assert "Last error" not in page
    assert "Input should be a valid integer" in client.get("/jobs?q=state:succeeded").text


def test_work_behind_wrappers_is_done(jobs: Jobs, app: JobQ, worker: StartWorker) -> None:
    results.create(jobs.connection)
    refs = {name: task.enqueue(jobs.connection, note=name) for name, task in results.DONE.items()}
    slow = results.hangs.options(timeout=0.5, max_attempts=1).enqueue(jobs.connection, "hangs")
    assert worker("--drain", app=APP).wait() == 0
    for name, ref in refs.items():
        assert (jobs.wait(ref.id)["state"], ref.result(timeout=5)) == ("succeeded", name)
    assert jobs.wait(slow.id)["state"] == "failed"
    assert jobs.attempts(slow.id)[0]["outcome"] == "timeout"
    assert sorted(works(jobs.connection)) == sorted([*results.DONE, "hangs"])


def test_work_behind_wrappers_is_done_in_a_drain(tester: JobqTester) -> None:
    refs = {name: task.enqueue(tester.connection, note=name) for name, task in results.DONE.items()}
    assert tester.drain().succeeded == len(refs)
    assert {name: ref.result(timeout=0) for name, ref in refs.items()} == {name: name for name in refs}


@pytest.mark.filterwarnings("error::RuntimeWarning")
def test_work_that_is_returned_is_a_failure(tester: JobqTester) -> None:
    refs = [task.enqueue(tester.connection, note="x") for task in results.UNDONE.values()]
    refs.append(results.rows.enqueue(tester.connection, note="x"))
    done = tester.drain()
    assert (done.succeeded, done.failed, done.retried) == (0, 3, 0)
    errors = [error(tester, ref.id) for ref in refs]
    assert "forgotten returned a coroutine that nothing has run: make the task an `async def`" in errors[0]
    assert "forgotten_async returned a coroutine that nothing has run: await it in the task" in errors[1]
    assert "rows returned a generator that nothing has run: return a list" in errors[2]
    assert works(tester.connection) == []


def error(tester: JobqTester, job: int) -> str:
    (row,) = tester.connection.execute(
        "SELECT state, attempt, error FROM jobq.job_history WHERE id = %s", (job,)
    ).fetchall()
    assert row[:2] == ("failed", 1)
    return str(row[2])


# --- assert_enqueued --------------------


class Aliased(BaseModel):
    order_id: int = Field(alias="orderId")
    day: date = date(2026, 1, 2)


stored = JobQ()


@stored.task
def confirm(order: Aliased, blob: bytes = b"", wait: float = 0.0) -> None: ...


def test_enqueued_jobs_are_found_by_what_their_task_stores(database_url: str) -> None:
    stored.configure(database_url=database_url)
    tester = JobqTester(stored, database_url)
    ref = confirm.enqueue(tester.connection, Aliased(orderId=1), b"\xff", -0.0)
    for arguments in (
        {"order": Aliased(orderId=1)},
        {"blob": b"\xff"},
        {"order": Aliased(orderId=1), "blob": b"\xff", "wait": 0.0},
        {"order": {"order_id": 1, "day": "2026-01-02"}},
    ):
        assert tester.assert_enqueued(confirm, **arguments).id == ref.id
        assert tester.assert_enqueued("confirm", **arguments).id == ref.id
    tester.refute_enqueued(confirm, order=Aliased(orderId=2))
    tester.refute_enqueued(confirm, blob=b"")
    tester.refute_enqueued("unknown", blob=b"\xff")
    with pytest.raises(InvalidArguments, match="confirm: there is no parameter 'ordre'"):
        tester.assert_enqueued(confirm, ordre=Aliased(orderId=1))
    tester.close()


def test_pairs_come_back_from_the_database(db: psycopg.Connection[Any]) -> None:
    """As tests/core/test_round_trips.py, through jsonb: it has numbers of its own, and an order of keys."""
    sent: list[tuple[Any, Any, Arguments, str]] = []
    for hint, values in pairs(random.Random(41), types=400, values=15):

        def task(x: Any) -> None: ...

        task.__annotations__["x"] = hint
        try:
            arguments = Arguments("task", task)
        except TaskDefinitionError:
            continue
        for value in values:
            try:
                sent.append((hint, value, arguments, arguments.encode((value,), {}, 1 << 20)))
            except InvalidArguments:
                continue
    rows = db.execute(
        "SELECT text::jsonb::text FROM unnest(%s::text[]) WITH ORDINALITY AS sent (text, n) ORDER BY n",
        ([text for *_, text in sent],),
    ).fetchall()
    assert len(rows) == len(sent) > 3000
    for (hint, value, arguments, text), (kept,) in zip(sent, rows, strict=True):
        assert Form(hint).of(arguments.decode(kept)["x"]) == Form(hint).of(value), (hint, value, text, kept)
