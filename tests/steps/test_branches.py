"""Several steps at once: gathers, and the concurrency that a task makes for itself."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context
from functools import partial
from typing import Any

import pytest

from jobq import NotDurable, current_job, step
from tests.support.inline_durable import Durable, durable, fail_once

calls: list[str] = []


@pytest.fixture
def run(database_url: str) -> Iterator[Durable]:
    calls.clear()
    with durable(database_url) as found:
        yield found


async def effect(value: int) -> int:
    calls.append(f"effect {value}")
    await asyncio.sleep(0)
    return value


def effect_sync(value: int) -> int:
    calls.append(f"effect {value}")
    return value


async def declines(value: int) -> int:
    calls.append(f"declines {value}")
    raise LookupError(f"no {value}")


def test_an_async_gather_runs_each_step_once(run: Durable) -> None:
    async def task() -> list[int]:
        found = await step.gather_async(*(step.run_async(effect, value) for value in range(5)))
        fail_once()
        return list(found)

    assert run.run(task) == [0, 1, 2, 3, 4]
    assert sorted(calls) == [f"effect {value}" for value in range(5)]


def test_branches_of_several_steps_that_wait(run: Durable) -> None:
    async def branch(value: int) -> int:
        await step.run_async(effect, value)
        await step.sleep_async(60 * (value + 1), name=f"sleep {value}")
        return await step.run_async(effect, value + 10)

    async def task() -> list[int]:
        return list(await step.gather_async(*(branch(value) for value in range(3))))

    assert run.run(task) == [10, 11, 12]
    assert sorted(calls) == sorted(f"effect {value}" for value in (0, 1, 2, 10, 11, 12))


def test_the_first_error_is_raised_after_all_have_ended(run: Durable) -> None:
    async def task() -> str:
        try:
            await step.gather_async(step.run_async(declines, 1), step.run_async(effect, 2), step.run_async(declines, 3))
        except LookupError as error:
            told = str(error)
        await step.run_async(effect, 4)
        fail_once()
        return told

    assert run.run(task) == "no 1"
    assert calls == ["declines 1", "effect 2", "declines 3", "effect 4"]


def test_an_error_beside_a_wait_is_raised(run: Durable) -> None:
    def declines_sync() -> int:
        raise LookupError("no")

    def task() -> str:
        try:
            step.gather(lambda: step.wait_for("never", int), lambda: step.run(declines_sync))
        except LookupError as error:
            return str(error)
        return "nothing"

    assert run.run(task) == "no"


def test_a_gather_in_a_gather(run: Durable) -> None:
    def inner(base: int) -> int:
        return sum(
            step.gather(
                lambda: step.run(effect_sync, base),
                lambda: step.wait_for(f"signal {base}", int),
            )
        )

    def task() -> list[int]:
        return list(step.gather(lambda: inner(10), lambda: inner(20)))

    job = run.start(task)
    for base in (20, 10):
        run.app.send_signal(None, job, f"signal {base}", 1)
        run.tester.drain()
    assert job.result(timeout=0) == [11, 21]
    assert calls == ["effect 10", "effect 20"]


def test_a_task_group(run: Durable) -> None:
    async def task() -> list[int]:
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(step.run_async(effect, value)) for value in range(3)]
        fail_once()
        return [each.result() for each in tasks]

    assert run.run(task) == [0, 1, 2]
    assert sorted(calls) == ["effect 0", "effect 1", "effect 2"]


def test_a_task_group_that_waits(run: Durable) -> None:
    async def branch(value: int) -> int:
        await step.sleep_async(60, name=f"sleep {value}")
        return value

    async def task() -> list[int]:
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(branch(value)) for value in range(3)]
        return [each.result() for each in tasks]

    assert run.run(task) == [0, 1, 2]


def test_an_error_in_a_task_group_is_the_jobs_error(run: Durable) -> None:
    """It is retried by the task's rules, and the waits beside it are no part of it."""

    async def task() -> str:
        async with asyncio.TaskGroup() as group:
            waiting = group.create_task(step.sleep_async(60))
            if current_job().attempt == 1:
                group.create_task(step.run_async(declines, 1))
        assert waiting.done()
        return "awake"

    job = run.task(task).submit()
    assert run.finish(job) == "awake"
    assert calls == ["declines 1"]
    assert run.errors(job) == ["ExceptionGroup: unhandled errors in a TaskGroup (1 sub-exception)"]


def test_asyncio_gather(run: Durable) -> None:
    async def task() -> list[int]:
        found = await asyncio.gather(*(step.run_async(effect, value) for value in range(3)))
        await asyncio.gather(step.sleep_async(60, name="a"), step.sleep_async(60, name="b"))
        return found

    assert run.run(task) == [0, 1, 2]
    assert sorted(calls) == ["effect 0", "effect 1", "effect 2"]


@pytest.mark.parametrize("how", [asyncio.gather, step.gather_async], ids=["asyncio", "step"])
def test_branches_of_which_only_the_last_was_stored(run: Durable, how: Callable[..., Any]) -> None:
    """As after a crash: the others are no change of the code."""
    seconds_effect = asyncio.Event()

    async def first() -> int:
        await seconds_effect.wait()
        fail_once()
        return await step.run_async(effect, 1)

    async def second() -> int:
        found = await step.run_async(effect, 2)
        seconds_effect.set()
        return found

    async def task() -> list[int]:
        branches = [asyncio.ensure_future(first()), asyncio.ensure_future(second())]
        await asyncio.wait(branches)
        return list(await how(*branches))

    assert run.run(task) == [1, 2]
    assert calls == ["effect 2", "effect 1"]


def test_equal_steps_are_told_apart_by_their_order(run: Durable) -> None:
    async def task() -> list[int]:
        found = await step.gather_async(*(step.run_async(effect, 1) for _ in range(3)))
        fail_once()
        return list(found)

    assert run.run(task) == [1, 1, 1]
    assert calls == ["effect 1"] * 3


def test_threads_of_a_task_with_its_context(run: Durable) -> None:
    def task() -> list[int]:
        with ThreadPoolExecutor(3) as pool:
            found = [pool.submit(partial(copy_context().run, step.run, effect_sync, value)) for value in range(3)]
        fail_once()
        return [each.result() for each in found]

    assert run.run(task) == [0, 1, 2]
    assert sorted(calls) == ["effect 0", "effect 1", "effect 2"]


def test_a_thread_without_the_context_is_refused(run: Durable) -> None:
    def task() -> str:
        with ThreadPoolExecutor(1) as pool:
            try:
                pool.submit(step.run, effect_sync, 1).result()
            except NotDurable as error:
                return str(error)
        return "nothing"

    assert "no durable job is run here" in run.run(task)


def test_a_thread_that_is_left_behind_takes_no_more_steps(run: Durable) -> None:
    go, told = threading.Event(), []

    def late() -> None:
        assert go.wait(30)
        try:
            step.run(effect_sync, 1)
        except NotDurable as error:
            told.append(str(error))

    thread: list[threading.Thread] = []

    def task() -> int:
        assert current_job().steps
        thread.append(threading.Thread(target=copy_context().run, args=(late,)))
        thread[0].start()
        return 1

    assert run.run(task) == 1
    go.set()
    thread[0].join(30)
    assert len(told) == 1
    assert "the job's execution has ended: wait for its threads and coroutines" in told[0]
    assert calls == []
