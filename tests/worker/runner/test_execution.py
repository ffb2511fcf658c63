"""What may be asked of an execution from other threads."""

from __future__ import annotations

import sys
import threading
import time
from uuid import uuid4

import pytest

from jobq import TimedOut
from jobq._worker.ipc.messages import Job
from jobq._worker.runner.execution import Execution


def test_a_timeout_before_the_task_begins_is_not_lost() -> None:
    """A transaction that takes long to begin, or a machine that was suspended: the task would run without a limit."""
    job = Job(1, 1, "task", "default", b"{}", 1, 1, 0, 0.1, b"{}")
    execution = Execution(job=job, worker=uuid4())
    begun: list[bool] = []
    execution.time_out()
    with pytest.raises(TimedOut):
        execution.call(lambda: begun.append(True), {})
    assert not begun


def strike(execution: Execution) -> None:
    """Time `execution` out from another thread, while its task runs in this one."""
    thread = threading.Thread(target=execution.time_out)
    thread.start()
    thread.join()


@pytest.mark.parametrize("tracing", [False, True])
def test_nothing_is_left_on_its_way_to_the_thread(tracing: bool) -> None:
    """Whether the task took the exception or swallowed it; also where functions are traced, as debuggers and coverage do."""
    job = Job(1, 1, "task", "default", b"{}", 1, 1, 0, 0.1, b"{}")
    before = sys.gettrace()
    sys.settrace((lambda *_: None) if tracing else before)
    try:
        for swallow in (False, True):
            execution = Execution(job=job, worker=uuid4())

            def task(execution: Execution = execution, swallow: bool = swallow) -> str:
                try:
                    strike(execution)
                    while True:
                        time.sleep(0)
                except TimedOut:
                    if not swallow:
                        raise
                    return "swallowed"

            if swallow:
                assert execution.call(task, {}) == "swallowed"
            else:
                with pytest.raises(TimedOut):
                    execution.call(task, {})
            # Calls on, and nothing comes.
            assert sum(abs(number) for number in range(1000)) == 499_500
    finally:
        sys.settrace(before)


def test_an_exception_that_comes_too_late_is_withdrawn() -> None:
    """It was sent while the task was in its last instruction, a call into C, and is not to hit what comes after."""
    job = Job(1, 1, "task", "default", b"{}", 1, 1, 0, 0.1, b"{}")
    outcomes = set()
    for _ in range(200):
        execution = Execution(job=job, worker=uuid4())
        sent = threading.Thread(target=execution.time_out)

        def task(sent: threading.Thread = sent) -> str:
            sent.start()
            return "done"

        try:
            outcomes.add(execution.call(task, {}))
        except TimedOut:
            outcomes.add("interrupted")
        sent.join()
        assert sum(abs(number) for number in range(100)) == 4950
    assert outcomes <= {"done", "interrupted"}
