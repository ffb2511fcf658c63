"""Middleware around enqueues and runs: its order, its errors, and what is refused when it is declared."""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Callable, Sequence
from typing import Any

import pytest

from jobq import (
    AsyncEnqueueNext,
    AsyncRunNext,
    Cancel,
    CurrentJob,
    EnqueueNext,
    JobQ,
    MiddlewareError,
    NewJob,
    RunNext,
    Snooze,
    TaskDefinitionError,
    current_job,
)
from jobq.testing import EagerJobs, eager

URL = "postgresql://nobody@127.0.0.1:1/nothing"


class App:
    """An application with one task of each kind, which write down what they do."""

    def __init__(self) -> None:
        self.q = JobQ(URL)
        self.log: list[Any] = []

        @self.q.task(max_attempts=2, backoff=[0])
        def double(number: int) -> int:
            self.log.append("task")
            return number * 2

        @self.q.task(max_attempts=2, backoff=[0])
        async def double_async(number: int) -> int:
            await asyncio.sleep(0)
            self.log.append("task")
            return number * 2

        self.double, self.double_async = double, double_async

    def layer(self, name: str) -> Any:
        """Return middleware of every form that writes down its name before and after."""
        log = self.log

        class Layer:
            def run(self, job: CurrentJob, call_next: RunNext) -> Any:
                log.append(f"{name} runs {job.task}")
                try:
                    return call_next(job)
                finally:
                    log.append(f"{name} ends")

            async def run_async(self, job: CurrentJob, call_next: AsyncRunNext) -> Any:
                log.append(f"{name} runs {job.task}")
                try:
                    return await call_next(job)
                finally:
                    log.append(f"{name} ends")

            def enqueue(self, jobs: Sequence[NewJob], call_next: EnqueueNext) -> None:
                log.append(f"{name} gets {len(jobs)}")
                call_next(jobs)

            async def enqueue_async(self, jobs: Sequence[NewJob], call_next: AsyncEnqueueNext) -> None:
                log.append(f"{name} gets {len(jobs)} async")
                await call_next(jobs)

        return Layer()


@pytest.fixture
def app() -> App:
    return App()


def run_one(app: App, *, is_async: bool, **options: Any) -> EagerJobs:
    task: Any = app.double_async if is_async else app.double
    with eager(app.q, **options) as jobs:
        task.submit(4)
    return jobs


@pytest.mark.parametrize("is_async", [False, True])
def test_the_first_that_is_declared_is_the_outermost(app: App, is_async: bool) -> None:
    app.q.middleware(app.layer("one"))
    app.q.middleware(app.layer("two"))
    name = "double_async" if is_async else "double"
    [job] = run_one(app, is_async=is_async).jobs
    assert (job.state, job.result) == ("succeeded", 8)
    assert app.log == [
        *("one gets 1", "two gets 1"),
        *(f"one runs {name}", f"two runs {name}", "task", "two ends", "one ends"),
    ]


async def test_on_an_event_loop_the_async_forms_are_called(app: App) -> None:
    app.q.middleware(app.layer("one"))
    with eager(app.q) as jobs:
        ref = await app.double_async.submit_async(4)
        await app.q.enqueue_many_async(None, [app.double_async.job(n) for n in range(3)])  # type: ignore[arg-type]
    assert [job.result for job in jobs.jobs] == [8, 0, 2, 4]
    assert (ref.id, app.log.count("one gets 1 async"), app.log.count("one gets 3 async")) == (1, 1, 1)


@pytest.mark.parametrize("is_async", [False, True])
def test_middleware_sees_the_job_and_may_replace_the_result(app: App, is_async: bool) -> None:
    seen: list[CurrentJob] = []

    @app.q.middleware
    class Replace:
        def run(self, job: CurrentJob, call_next: RunNext) -> Any:
            seen.append(job)
            return call_next(job) + 1

        async def run_async(self, job: CurrentJob, call_next: AsyncRunNext) -> Any:
            seen.append(job)
            return await call_next(job) + 1

    [job] = run_one(app, is_async=is_async).jobs
    [at_run] = seen
    assert job.result == 9
    assert (at_run.id, at_run.attempt, at_run.queue, dict(at_run.args)) == (1, 1, "default", {"number": 4})
    with pytest.raises(TypeError):
        at_run.args["number"] = 5  # type: ignore[index]


def test_the_job_is_that_of_current_job_and_no_other_can_be_passed_on(app: App) -> None:
    @app.q.middleware.run
    def other(job: CurrentJob, call_next: RunNext) -> Any:
        import dataclasses

        assert job is current_job()
        return call_next(dataclasses.replace(job, args={"number": 5}))

    [job] = run_one(app, is_async=False).jobs
    assert job.state == "failed"
    assert isinstance(job.exception, MiddlewareError)


@pytest.mark.parametrize("is_async", [False, True])
def test_an_error_of_middleware_is_an_attempts_error(app: App, is_async: bool) -> None:
    def before(job: CurrentJob, call_next: RunNext) -> Any:
        raise ConnectionError("no trace collector")

    async def before_async(job: CurrentJob, call_next: AsyncRunNext) -> Any:
        raise ConnectionError("no trace collector")

    app.q.middleware.run(before)
    app.q.middleware.run(before_async)
    [job] = run_one(app, is_async=is_async).jobs
    assert (job.state, job.attempt, job.error) == ("failed", 2, "ConnectionError: no trace collector")
    assert app.log == []


@pytest.mark.parametrize("is_async", [False, True])
def test_what_a_task_raises_to_steer_its_job_passes_through(is_async: bool) -> None:
    app = App()
    app.q.middleware(app.layer("one"))

    @app.q.middleware
    class Steer:
        def run(self, job: CurrentJob, call_next: RunNext) -> Any:
            call_next(job)
            raise Snooze(5)

        async def run_async(self, job: CurrentJob, call_next: AsyncRunNext) -> Any:
            await call_next(job)
            raise Cancel("not wanted")

    [job] = run_one(app, is_async=is_async).jobs
    assert (job.state, job.attempt) == (("cancelled", 1) if is_async else ("ready", 0))
    assert app.log[-2:] == ["task", "one ends"]


def test_it_may_answer_without_the_task_and_call_it_twice(app: App) -> None:
    @app.q.middleware.run(tasks=[app.double])
    def cached(job: CurrentJob, call_next: RunNext) -> Any:
        return 7 if job.args["number"] == 3 else call_next(job) + call_next(job)

    with eager(app.q) as jobs:
        app.double.submit(3)
        app.double.submit(4)
    assert ([job.result for job in jobs.jobs], app.log) == ([7, 16], ["task", "task"])


def test_only_named_tasks(app: App) -> None:
    @app.q.task
    def other() -> None: ...

    app.q.middleware(app.layer("named"), tasks=[other, "later"])
    with eager(app.q) as jobs:
        app.double.submit(1)
        other.submit()
        app.q.enqueue_many(None, [app.double.job(1), other.job(), app.double.job(2)])  # type: ignore[arg-type]
    assert app.log == [
        "task",
        *("named gets 1", "named runs other", "named ends"),
        *("named gets 1", "task", "named runs other", "named ends", "task"),
    ]
    assert [job.task for job in jobs.jobs] == ["double", "other", "double", "other", "double"]


def test_enqueue_middleware_changes_headers_and_options_in_order(app: App) -> None:
    @app.q.middleware.enqueue
    def outer(jobs: Sequence[NewJob], call_next: EnqueueNext) -> Any:
        inserted = call_next([job.with_headers({"by": "outer", "trace": 1}) for job in jobs])
        app.log.append([each.id for each in inserted])

    @app.q.middleware.enqueue(tasks=["double"])
    def inner(jobs: Sequence[NewJob], call_next: EnqueueNext) -> Any:
        assert [job.options.headers["by"] for job in jobs] == ["outer"] * len(jobs)
        return call_next([job.with_headers({"by": "inner"}).with_options(priority=9) for job in jobs])

    with eager(app.q, run=False) as jobs:
        app.q.enqueue_many(None, [app.double.job(1), app.double_async.job(2), app.double.job(3)])  # type: ignore[arg-type]
    assert [(job.options.headers["by"], job.options.priority, job.args["number"]) for job in jobs.jobs] == [
        ("inner", 9, 1),
        ("outer", 5, 2),
        ("inner", 9, 3),
    ]
    assert app.log == [[1, 2, 3]]


def test_enqueue_middleware_refuses_by_raising(app: App) -> None:
    @app.q.middleware.enqueue
    def refuse(jobs: Sequence[NewJob], call_next: EnqueueNext) -> None:
        raise PermissionError("closed for today")

    with eager(app.q) as jobs, pytest.raises(PermissionError, match="closed for today"):
        app.double.submit(1)
    assert jobs.jobs == []


def _none(jobs: Sequence[NewJob], call_next: EnqueueNext) -> None: ...


def _fewer(jobs: Sequence[NewJob], call_next: EnqueueNext) -> None:
    call_next(jobs[1:])


def _twice(jobs: Sequence[NewJob], call_next: EnqueueNext) -> None:
    call_next(jobs)
    call_next(jobs)


def _other_key(jobs: Sequence[NewJob], call_next: EnqueueNext) -> None:
    call_next([job.with_options(key="other") for job in jobs])


def _no_job(jobs: Sequence[NewJob], call_next: EnqueueNext) -> None:
    call_next([None for _ in jobs])  # type: ignore[misc]


@pytest.mark.parametrize(
    ("broken", "says"),
    [
        (_none, "without a call of call_next"),
        (_fewer, "was given 2 jobs and passed on 1"),
        (_twice, "called call_next\\(jobs\\) twice"),
        (_other_key, "changed the task or the key"),
        (_no_job, "passed on None"),
    ],
)
def test_what_enqueue_middleware_must_not_do(app: App, broken: Callable[..., None], says: str) -> None:
    app.q.middleware.enqueue(broken)
    with eager(app.q, run=False), pytest.raises(MiddlewareError, match=f"middleware {broken.__name__}.*{says}"):
        app.q.enqueue_many(None, [app.double.job(1), app.double.job(2)])  # type: ignore[arg-type]


class OnlySync:
    def run(self, job: CurrentJob, call_next: RunNext) -> Any:
        return call_next(job)


class OnlySyncByChoice(OnlySync):
    run_async = None


class OnlyAsync:
    async def run_async(self, job: CurrentJob, call_next: AsyncRunNext) -> Any:
        return await call_next(job)


def test_what_would_pass_a_middleware_by_is_refused_at_the_later_declaration(app: App) -> None:
    with pytest.raises(TaskDefinitionError, match="OnlySync has run, and task 'double_async' is an `async def`"):
        app.q.middleware(OnlySync)
    with pytest.raises(
        TaskDefinitionError, match="OnlyAsync has run_async, and task 'double' is a `def`: write run as"
    ):
        app.q.middleware(OnlyAsync())
    with pytest.raises(TaskDefinitionError, match="is for task 'double_async', an `async def`, and has no run_async"):
        app.q.middleware(OnlySyncByChoice(), tasks=[app.double_async])
    app.q.middleware(OnlySync(), tasks=["double", "later"])
    app.q.middleware(OnlySyncByChoice)
    with pytest.raises(TaskDefinitionError, match="task 'later' is an `async def`"):

        @app.q.task
        async def later() -> None: ...

    assert "later" not in app.q.tasks
    assert run_one(app, is_async=True).jobs[0].result == 8


def test_a_def_around_an_async_def_is_refused(app: App) -> None:
    @app.q.middleware(tasks=["wrapped"])
    class Both(OnlySync, OnlyAsync): ...

    async def inner() -> int:
        return 1

    @functools.wraps(inner)
    def wrapped() -> Any:
        return inner()

    with pytest.raises(TaskDefinitionError, match="a `def` around an `async def`"):
        app.q.task(name="wrapped")(wrapped)


class _Nothing: ...


class _HalfEnqueue:
    def enqueue(self, jobs: Sequence[NewJob], call_next: EnqueueNext) -> Any:
        return call_next(jobs)


class _AsyncRun:
    async def run(self, job: CurrentJob, call_next: RunNext) -> Any: ...


class _SyncRunAsync:
    def run_async(self, job: CurrentJob, call_next: RunNext) -> Any: ...


class _OneParameter:
    def run(self, job: CurrentJob) -> Any: ...


class _Text:
    run = "run"
    run_async = None

    def enqueue(self) -> None: ...


class _Generator:
    def run(self, job: CurrentJob, call_next: RunNext) -> Any:
        yield call_next(job)


class _NeedsArguments(OnlySync):
    def __init__(self, exporter: str) -> None: ...


@pytest.mark.parametrize(
    ("given", "says"),
    [
        (_Nothing, "has none of the methods"),
        (_HalfEnqueue, "has enqueue and no enqueue_async"),
        (_AsyncRun, "run is an `async def`: call it run_async"),
        (_SyncRunAsync, "run_async is a `def`: call it run"),
        (_OneParameter, r"run is called with \(job, call_next\)"),
        (_Text, "run is 'run': expected a method, or None"),
        (_Generator, "run is a generator"),
        (_NeedsArguments, r"pass an object, q.middleware\(_NeedsArguments\(…\)\)"),
        (lambda job, call_next: None, "use @q.middleware.run"),
    ],
)
def test_what_is_no_middleware(given: Any, says: str) -> None:
    with pytest.raises(TaskDefinitionError, match=says):
        JobQ(URL).middleware(given)


@pytest.mark.parametrize("tasks", ["double", [3], [None]])
def test_tasks_are_a_list_of_tasks_or_names(app: App, tasks: Any) -> None:
    with pytest.raises(TaskDefinitionError, match="tasks="):
        app.q.middleware(app.layer("one"), tasks=tasks)


def test_names_that_no_task_has_are_found_when_a_runner_starts(app: App) -> None:
    app.q.middleware(app.layer("one"), tasks=["duoble"])
    with pytest.raises(TaskDefinitionError, match="is for task 'duoble', which there is not"):
        app.q.middlewares.check_names(app.q.tasks)


def test_without_middleware_the_function_itself_is_called(app: App) -> None:
    """What makes an empty chain free."""
    around = app.q.middlewares.around
    assert around(app.double, app.double.function) is app.double.function
    app.q.middleware(app.layer("one"), tasks=["double_async"])
    assert around(app.double, app.double.function) is app.double.function
    assert around(app.double_async, app.double_async.function) is not app.double_async.function
