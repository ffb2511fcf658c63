"""Batch tasks: how they are declared and enqueued, and how they run without a worker."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, List  # noqa: UP035

import psycopg
import pytest

from jobq import (
    AsyncBatchTask,
    BatchTask,
    CurrentBatch,
    Fail,
    InvalidArguments,
    InvalidOption,
    JobFailed,
    JobQ,
    NoCurrentJob,
    Resource,
    Snooze,
    TaskDefinitionError,
    current_batch,
    current_job,
    injected,
)
from jobq._worker.inline import Drained, drain
from jobq.testing import eager, override_resource
from tests.support.checks import some


@dataclass
class Document:
    id: int
    title: str


class Search:
    def __init__(self) -> None:
        self.calls: list[list[int]] = []


q = JobQ("postgresql://nobody@127.0.0.1:1/nothing")
search = Search()


@q.resource
def client() -> Iterator[Search]:
    yield search


@q.task(batch=4, max_attempts=3, backoff=[0])
def index(documents: list[Document], client: Resource[Search] = injected) -> list[str | Exception]:
    client.calls.append([document.id for document in documents])
    if any(document.title == "poison" for document in documents):
        raise ValueError("poison")
    return [KeyError("no title") if not document.title else document.title.upper() for document in documents]


@q.task(batch=4, max_attempts=1)
async def touch(ids: list[int]) -> None:
    search.calls.append(ids)
    batch = current_batch()
    assert [job.args["ids"] for job in batch.jobs] == ids
    for place, number in enumerate(ids):
        if number < 0:
            batch.fail(place, Fail(f"{number} is below 0"))


@pytest.fixture(autouse=True)
def nothing_was_called() -> None:
    search.calls.clear()


def documents(*titles: str) -> list[Document]:
    return [Document(number, title) for number, title in enumerate(titles)]


# --- how they are declared


def no_list(item: int) -> None: ...
def two(first: list[int], second: list[int]) -> None: ...
def none() -> None: ...
def with_default(items: list[int] = []) -> None: ...  # noqa: B006
def bare_list(items: List) -> None: ...  # type: ignore[type-arg]  # noqa: UP006
def bare_results(items: list[int]) -> List: ...  # type: ignore[type-arg, empty-body]  # noqa: UP006
def one_result(items: list[int]) -> int:
    return len(items)


def fine(items: list[int]) -> None: ...


@pytest.mark.parametrize(
    ("function", "options", "message"),
    [
        (no_list, {"batch": 5}, "item takes the items of a batch and is no list"),
        (bare_list, {"batch": 5}, "items takes the items of a batch and is no list"),
        (bare_results, {"batch": 5}, "a batch task returns typing.List: expected None, or list"),
        (two, {"batch": 5}, "has one parameter without a default"),
        (none, {"batch": 5}, "has one parameter without a default"),
        (with_default, {"batch": 5}, "has one parameter without a default"),
        (one_result, {"batch": 5}, "a batch task returns <class 'int'>: expected None, or list"),
        (fine, {"batch": 0}, "batch=0: expected a number of jobs from 1 to 10,000"),
        (fine, {"batch": 10_001}, "batch=10001"),
        (fine, {"batch": True}, "batch=True"),
        (fine, {"batch": 5, "linger": -1}, "linger=-1: expected seconds from 0 to 10"),
        (fine, {"batch": 5, "linger": 11}, "linger=11"),
        (fine, {"linger": 1}, "linger=1 is for batch tasks"),
        (fine, {"batch": 5, "transactional": True}, "a transaction commits with the success of one job"),
        (fine, {"batch": 5, "isolation": "process"}, "such a process runs one job at a time"),
    ],
)
def test_what_is_no_batch_task_says_so(function: Callable[..., Any], options: dict[str, Any], message: str) -> None:
    with pytest.raises(TaskDefinitionError, match=message):
        JobQ().task(**options)(function)


def test_a_batch_task_has_a_size_a_linger_and_a_kind() -> None:
    assert (index.batch, index.linger, index.is_async) == (4, 0.05, False)
    assert (touch.batch, touch.is_async) == (4, True)
    assert isinstance(index, BatchTask)
    assert isinstance(touch, AsyncBatchTask)
    assert index.ref(1).id == 1


def test_a_call_calls_the_function_with_a_list() -> None:
    found = index(documents("a", "b"), client=search)
    assert found == ["A", "B"]
    assert search.calls == [[0, 1]]
    with pytest.raises(NoCurrentJob, match="no batch is being run here"):
        asyncio.run(touch([1]))


def test_an_item_is_checked_when_it_is_enqueued() -> None:
    assert index.job(Document(1, "a")).args_json == '{"documents":{"id":1,"title":"a"}}'
    assert index.job(documents=Document(1, "a")).args_json == '{"documents":{"id":1,"title":"a"}}'  # type: ignore[call-arg]
    with pytest.raises(InvalidArguments, match="index: documents"):
        index.job([Document(1, "a")])  # type: ignore[arg-type]


# --- how they run in tests


def test_eager_mode_runs_what_one_call_enqueues_in_batches() -> None:
    with eager(q) as jobs:
        refs = q.enqueue_many(None, [index.job(document) for document in documents("a", "b", "c", "d", "e")])  # type: ignore[arg-type]
        assert [ref.result() for ref in refs] == ["A", "B", "C", "D", "E"]
        assert index.submit(Document(9, "z")).result() == "Z"
    assert search.calls == [[0, 1, 2, 3], [4], [9]]
    assert {job.state for job in jobs.jobs} == {"succeeded"}


def test_eager_mode_retries_in_smaller_batches() -> None:
    with eager(q) as jobs:
        refs = q.enqueue_many(None, [index.job(document) for document in documents("a", "poison", "", "d")])  # type: ignore[arg-type]
        with pytest.raises(JobFailed, match="poison"):
            refs[1].result()
    assert search.calls == [[0, 1, 2, 3], [0, 1], [2, 3], [0], [1], [2]]
    assert [job.state for job in jobs.jobs] == ["succeeded", "failed", "failed", "succeeded"]
    assert [job.attempt for job in jobs.jobs] == [3, 3, 3, 2]
    assert isinstance(jobs.jobs[2].exception, KeyError)


def test_eager_mode_records_and_runs_later() -> None:
    with eager(q, run=False) as jobs:
        for number in range(6):
            touch.submit(number)
        assert search.calls == []
        assert jobs.drain() == 6
    assert search.calls == [[0, 1, 2, 3], [4, 5]]


def app_with_cancels() -> tuple[JobQ, list[str]]:
    own = JobQ()
    calls: list[str] = []

    @own.task(batch=3)
    def batched(names: list[str]) -> None:
        calls.extend(names)

    @own.task
    def cancel(job_id: int) -> None:
        own.ref(job_id).cancel("not wanted")

    return own, calls


@pytest.mark.parametrize("run", [True, False], ids=["at once", "drain"])
def test_eager_mode_runs_no_job_that_another_one_has_cancelled(run: bool) -> None:
    own, calls = app_with_cancels()
    batched, cancel = own.tasks["batched"], own.tasks["cancel"]
    with eager(own, run=run) as jobs:
        own.enqueue_many(None, [batched.job("a"), batched.job("b"), cancel.job(1)])  # type: ignore[arg-type]
        if not run:
            jobs.drain()
    assert calls == ["b"]
    assert [(job.state, job.attempt) for job in jobs.jobs] == [("cancelled", 0), ("succeeded", 1), ("succeeded", 1)]


async def test_eager_mode_on_an_event_loop() -> None:
    with eager(q) as jobs:
        await q.enqueue_many_async(None, [touch.job(number) for number in (1, -2, 3, 4, 5)])  # type: ignore[arg-type]
    assert search.calls == [[1, -2, 3, 4], [5]]
    assert [job.state for job in jobs.jobs] == ["succeeded", "failed", "succeeded", "succeeded", "succeeded"]


def test_eager_mode_raises_the_exception_of_a_job_after_all_of_its_batch_have_ended() -> None:
    with eager(q, propagate=True) as jobs, pytest.raises(Fail, match="-1 is below 0"):
        q.enqueue_many(None, [touch.job(number) for number in (-1, 2)])  # type: ignore[arg-type]
    assert [job.state for job in jobs.jobs] == ["failed", "succeeded"]


def test_a_resource_may_be_overridden() -> None:
    other = Search()
    with eager(q), override_resource(q, client, other):
        index.submit(Document(1, "a"))
    assert (other.calls, search.calls) == ([[1]], [])


@pytest.fixture
def connection(database_url: str) -> Iterator[psycopg.Connection[Any]]:
    q.configure(database_url=database_url)
    with psycopg.connect(database_url, autocommit=True) as connection:
        yield connection
    q.close()


def test_a_drain_runs_batches(connection: psycopg.Connection[Any]) -> None:
    made = [index.job(document) for document in documents("a", "b", "", "d", "e", "f")]
    refs = q.enqueue_many(connection, [*made, touch.job(1), touch.job(-2)])
    assert drain(q, connection) == Drained(succeeded=6, failed=2, retried=2)
    assert sorted(search.calls) == [[0, 1, 2, 3], [1, -2], [2], [2], [4, 5]]
    assert [ref.status() for ref in refs] == ["succeeded"] * 2 + ["failed"] + ["succeeded"] * 4 + ["failed"]
    assert refs[0].result() == "A"


def test_a_drain_runs_no_more_jobs_than_it_may(connection: psycopg.Connection[Any]) -> None:
    q.enqueue_many(connection, [touch.job(number) for number in range(10)])
    assert drain(q, connection, max_jobs=6) == Drained(succeeded=6, failed=0, retried=0)
    assert [len(call) for call in search.calls] == [4, 2]


# --- what they return and fail with


@pytest.mark.parametrize(
    ("value", "message"),
    [([1], "was called with 2 jobs and returned 1 results"), ({1: 2}, "was called with 2 jobs and returned dict")],
)
def test_a_result_for_no_job_in_particular_fails_all_of_them(value: Any, message: str) -> None:
    own = JobQ()

    @own.task(batch=5)
    def wrong(items: list[int]) -> list[int]:
        return value  # type: ignore[no-any-return]

    with eager(own) as jobs:
        own.enqueue_many(None, [wrong.job(1), wrong.job(2)])  # type: ignore[arg-type]
    assert [(job.state, job.attempt) for job in jobs.jobs] == [("failed", 1)] * 2
    assert all(message in str(job.error) for job in some(jobs.jobs))


def test_an_annotation_of_exceptions_only_stores_no_result() -> None:
    own = JobQ()

    @own.task(batch=5, max_attempts=1)
    def check(items: list[int]) -> list[Exception]:
        return [ValueError(str(item)) for item in items]

    assert check.arguments.returned_type is type(None)
    with eager(own) as jobs:
        own.enqueue_many(None, [check.job(1), check.job(2)])  # type: ignore[arg-type]
    assert [job.error for job in jobs.jobs] == ["ValueError: 1", "ValueError: 2"]


def test_a_named_failure_stays_when_the_call_fails() -> None:
    own = JobQ()

    @own.task(batch=5, max_attempts=1)
    def both(items: list[int]) -> None:
        current_batch().fail(0, Snooze(60))
        with pytest.raises(InvalidOption, match="place=5"):
            current_batch().fail(5, ValueError())
        with pytest.raises(InvalidOption, match="expected an exception"):
            current_batch().fail(0, "no")  # type: ignore[arg-type]
        with pytest.raises(NoCurrentJob, match="use current_batch"):
            current_job()
        raise ValueError("the rest")

    with eager(own) as jobs:
        own.enqueue_many(None, [both.job(1), both.job(2)])  # type: ignore[arg-type]
    assert [job.state for job in jobs.jobs] == ["ready", "failed"]


# --- middleware


def test_middleware_is_called_once_for_a_batch() -> None:
    own = JobQ()
    seen: list[Any] = []

    @own.middleware
    class Tracing:
        run_async = None

        def run(self, job: Any, call_next: Any) -> Any:
            seen.append(job.task)
            return call_next(job)

        def run_batch(self, batch: CurrentBatch, call_next: Any) -> Any:
            seen.append((batch.task, len(batch), [job.attempt for job in batch.jobs]))
            return [2 * number for number in call_next(batch)]

        async def run_batch_async(self, batch: CurrentBatch, call_next: Any) -> Any:
            seen.append("async")
            return await call_next(batch)

    @own.task(batch=5)
    def doubled(items: list[int]) -> list[int]:
        return items

    @own.task(batch=5)
    async def same(items: list[int]) -> list[int]:
        return items

    with eager(own):
        refs = own.enqueue_many(None, [doubled.job(1), doubled.job(2), same.job(3)])  # type: ignore[arg-type]
        assert [ref.result() for ref in refs] == [2, 4, 3]
    assert sorted(seen, key=str) == [("doubled", 2, [1, 1]), "async"]


def test_middleware_that_would_skip_batches_is_refused() -> None:
    own = JobQ()

    @own.middleware
    class Timing:
        run_async = None

        def run(self, job: Any, call_next: Any) -> Any:
            return call_next(job)

    with pytest.raises(
        TaskDefinitionError, match=r"has run, and task 'fine' is a batch task \(a `def`\): write run_batch"
    ):
        own.task(batch=5)(fine)
    Timing.run_batch = None  # type: ignore[attr-defined]
    other = JobQ()
    other.middleware(Timing)
    other.task(batch=5)(fine)
