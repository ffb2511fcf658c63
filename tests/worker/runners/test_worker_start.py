"""Which runner calls the functions for the start of the worker, and who waits for it."""

from __future__ import annotations

from typing import cast

from jobq._worker.ipc.messages import RunnerReady
from jobq._worker.runners.process import RunnerProcess
from jobq._worker.runners.worker_start import WorkerStart

HELLO = RunnerReady([])


def runners(number: int) -> list[RunnerProcess]:
    """Stand-ins: only which is which matters."""
    return [cast(RunnerProcess, object()) for _ in range(number)]


def hire(start: WorkerStart, *children: RunnerProcess) -> list[bool]:
    """Return for each whether it is to call the functions."""
    found = []
    for child in children:
        found.append(start.is_due)
        start.started(child)
    return found


def test_runners_that_are_ready_sooner_wait_for_the_first() -> None:
    start = WorkerStart()
    one, two, three = runners(3)
    assert hire(start, one, two, three) == [True, False, False]
    assert start.ready(two, HELLO) == []
    assert start.succeeded() == [(two, HELLO)]
    assert start.ready(one, HELLO) == [(one, HELLO)]
    assert start.ready(three, HELLO) == [(three, HELLO)]


def test_those_that_come_later_do_not_start_the_worker() -> None:
    start = WorkerStart()
    one, two = runners(2)
    hire(start, one)
    start.succeeded()
    # Even if its own start fails afterwards.
    start.ended(one)
    assert hire(start, two) == [False]
    assert start.ready(two, HELLO) == [(two, HELLO)]


def test_after_a_failed_start_the_next_one_calls_them() -> None:
    start = WorkerStart()
    one, two, three, four = runners(4)
    hire(start, one, two, three)
    assert start.ready(two, HELLO) == start.ready(three, HELLO) == []
    start.ended(three)
    start.ended(one)
    assert hire(start, four) == [True]
    assert start.succeeded() == [(two, HELLO)]
    assert start.ready(four, HELLO) == [(four, HELLO)]
