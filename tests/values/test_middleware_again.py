"""Middleware that is declared again, by a notebook or a reload, and inserts that middleware repeats."""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Sequence
from typing import Any

import pytest

from jobq import AsyncEnqueueNext, CurrentJob, EnqueueNext, MiddlewareError, NewJob, RunNext
from jobq.job import InsertResult
from tests.values.test_middleware import App, run_one


@pytest.fixture
def app() -> App:
    return App()


CELL = """
@q.middleware.enqueue
def stamp(jobs, call_next):
    call_next([job.with_headers({{"by": {value}}}) for job in jobs])

@q.middleware
class Watch:
    def run(self, job, call_next):
        log.append({value})
        return call_next(job)
    run_async = None

@q.on_runner_start
def begin():
    pass
"""


def test_what_a_notebook_defines_again_takes_the_place_of_the_former(app: App) -> None:
    names: dict[str, Any] = {"q": app.q, "log": app.log, "__name__": "notebook"}
    for value in (1, 2):
        exec(compile(CELL.format(value=value), f"cell {value}", "exec"), names)
    [job] = run_one(app, is_async=False).jobs
    assert (job.options.headers, app.log) == ({"by": 2}, [2, "task"])
    assert app.q.hooks.runner_start == [names["begin"]]


class Stamp:
    def __init__(self, log: list[Any], value: int) -> None:
        self.log, self.value = log, value

    def run(self, job: CurrentJob, call_next: RunNext) -> Any:
        self.log.append(self.value)
        return call_next(job)

    run_async = None


def stamp(log: list[Any], value: int, job: CurrentJob, call_next: RunNext) -> Any:
    return Stamp(log, value).run(job, call_next)


def stamp_of(log: list[Any], value: int) -> Any:
    return lambda job, call_next: stamp(log, value, job, call_next)


def layers_after(app: App, *cells: tuple[str, str]) -> list[Any]:
    """Run the cells, each a name and its content, in one notebook; return what a job then writes down."""
    names: dict[str, Any] = {
        "q": app.q, "log": app.log, "Stamp": Stamp, "stamp": stamp, "stamp_of": stamp_of, "partial": functools.partial,
        "kept": Stamp(app.log, 7), "run": functools.partial(stamp, app.log, 8), "__name__": "notebook",
    }  # fmt: skip
    for name, content in cells:
        exec(compile(content, name, "exec"), names)
    run_one(app, is_async=False)
    return [each for each in app.log if each != "task"]


@pytest.mark.parametrize(
    "content",
    [
        "q.middleware(Stamp(log, {}))",
        "q.middleware(Stamp(log, {}), tasks=['double'])",
        "q.middleware(tasks=['double'])(Stamp(log, {}))",
        "q.middleware.run(partial(stamp, log, {}))",
        "q.middleware.run(stamp_of(log, {}))",
        "def declare():\n    q.middleware(Stamp(log, {}))\ndeclare()",
        "class Own(Stamp): pass\nq.middleware(Own(log, {}))",
    ],
)
def test_a_cell_run_again_declares_no_object_twice(app: App, content: str) -> None:
    # The same cell, and an edited one, which has another name.
    assert layers_after(app, *[("cell 1", content.format(1))] * 2, ("cell 2", content.format(2))) == [2]


@pytest.mark.parametrize("content", ["q.middleware(kept)", "q.middleware.run(run)"])
def test_an_object_that_is_kept_is_not_declared_twice(app: App, content: str) -> None:
    assert len(layers_after(app, ("cell 1", content), ("cell 2", content), ("cell 2", f"\n{content}"))) == 1


@pytest.mark.parametrize(
    "content",
    [
        "for n in (1, 2): q.middleware(Stamp(log, n))",
        "q.middleware(Stamp(log, 1))\nq.middleware(Stamp(log, 2))",
        "q.middleware.run(partial(stamp, log, 1))\nq.middleware.run(partial(stamp, log, 2))",
        "def declare(n):\n    q.middleware(Stamp(log, n))\ndeclare(1), declare(2)",
        "q.middleware(kept, tasks=['double'])\nq.middleware(kept)",
    ],
)
def test_two_objects_of_one_class_both_apply(app: App, content: str) -> None:
    assert len(layers_after(app, ("cell 1", content))) == 2


def test_a_function_for_the_start_is_declared_once(app: App) -> None:
    def begin() -> None: ...

    for _ in range(2):
        app.q.on_runner_start(begin)
    assert app.q.hooks.runner_start == [begin]


@pytest.mark.parametrize("is_async", [False, True])
async def test_middleware_may_repeat_an_insert_that_failed(app: App, is_async: bool) -> None:
    def insert(jobs: Sequence[NewJob]) -> list[InsertResult]:
        app.log.append(len(jobs))
        if len(app.log) < 2:
            raise ConnectionError
        return [InsertResult(1, True, False)]

    async def insert_async(jobs: Sequence[NewJob]) -> list[InsertResult]:
        return insert(jobs)

    @app.q.middleware
    class Again:
        def enqueue(self, jobs: Sequence[NewJob], call_next: EnqueueNext) -> None:
            with pytest.raises(MiddlewareError, match="passed on 0"):
                call_next([])
            with pytest.raises(ConnectionError):
                call_next(jobs)
            call_next(jobs)
            with pytest.raises(MiddlewareError, match="twice"):
                call_next(jobs)

        async def enqueue_async(self, jobs: Sequence[NewJob], call_next: AsyncEnqueueNext) -> None:
            with pytest.raises(ConnectionError):
                await call_next(jobs)
            first, second = await asyncio.gather(call_next(jobs), call_next(jobs), return_exceptions=True)
            assert isinstance(first, list)
            assert isinstance(second, MiddlewareError)

    jobs = [app.double.job(1)]
    middlewares = app.q.middlewares
    done = await middlewares.insert_async(jobs, insert_async) if is_async else middlewares.insert(jobs, insert)
    assert (len(done), app.log) == (1, [1, 1])
