"""What may be asked of an execution from other threads."""

from __future__ import annotations

from uuid import uuid4

import pytest

from jobq import TimedOut
from jobq.worker.execution import Execution
from jobq.worker.frames import Job


def test_a_timeout_before_the_task_begins_is_not_lost() -> None:
    """A transaction that takes long to begin, or a machine that was suspended: the task would run without a limit."""
    job = Job(1, 1, "task", "default", b"{}", 1, 1, 0, 0.1, b"{}")
    execution = Execution(job=job, worker=uuid4())
    begun: list[bool] = []
    execution.time_out()
    with pytest.raises(TimedOut):
        execution.call(lambda: begun.append(True), {})
    assert not begun
