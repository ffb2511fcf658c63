"""The end of a durable job whose steps are to be undone: the last one first, before its outcome is reported."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from typing import Any

from jobq._core.storable import storable_text
from jobq._worker.ipc.messages import AlreadyCommitted, Disposition, Failure, Success
from jobq._worker.runner.execution import Execution
from jobq.errors import StepChanged
from jobq.steps import kinds
from jobq.steps.drive import drive, drive_async
from jobq.steps.log import StepLog, Taking
from jobq.steps.suspension import ExecutionLost, suspension_in
from jobq.task import BaseTask

Outcome = Success | Failure | AlreadyCommitted
_ENDS = (Disposition.FAIL, Disposition.CANCEL)
_Judge = Callable[[BaseException], Failure]


def steps_to_undo(execution: Execution, error: BaseException, outcome: Failure) -> StepLog | None:
    """Return the steps of a job that ends by `outcome`, if they have to be undone first; else None."""
    log = execution.steps
    if log is None or suspension_in(error) is not None or isinstance(error, (StepChanged, ExecutionLost)):
        # After a change of the code, steps stay as they are: a retry with code that fits goes on.
        return None
    if log.verdict is None and (not log.undos or outcome.ending not in _ENDS):
        return None
    # If the task has raised before it came to all of them again, this is an ordinary error.
    return log if log.knows_all_undos else None


def undo(execution: Execution, task: BaseTask[..., Any], log: StepLog, outcome: Failure, judge: _Judge) -> Failure:
    """Undo the steps of a job, and return its outcome. `judge`: the outcome of an error meanwhile. Raises nothing."""
    goes_on = log.verdict is not None
    try:
        drive(log, _begin(execution, task, log, outcome))
    except BaseException as error:
        return judge(error)
    return _final(execution, log, outcome) if goes_on else outcome


async def undo_async(
    execution: Execution, task: BaseTask[..., Any], log: StepLog, outcome: Failure, judge: _Judge
) -> Failure:
    """Undo the steps of a job on an event loop, like `undo`."""
    if (current := asyncio.current_task()) is not None:
        while current.cancelling():
            current.uncancel()
    goes_on = log.verdict is not None
    try:
        await drive_async(log, _begin(execution, task, log, outcome))
    except BaseException as error:
        return judge(error)
    return _final(execution, log, outcome) if goes_on else outcome


def _begin(execution: Execution, task: BaseTask[..., Any], log: StepLog, outcome: Failure) -> Taking:
    # From now on a cancellation does not interrupt: the job ends anyway.
    execution.is_undoing = True
    log.suspended = None
    verdict = {"ending": outcome.ending.name, "type": outcome.error_type, "message": outcome.message}
    return kinds.undo(log, json.dumps(verdict), execution.job.max_attempts, task.backoff)


def _final(execution: Execution, log: StepLog, outcome: Failure) -> Failure:
    """Return the outcome that an earlier execution decided before it undid the first step."""
    told = json.loads(log.verdict or "{}")
    job = execution.job
    return Failure(
        job.id,
        job.claims,
        job.started,
        Disposition[told.get("ending", "FAIL")],
        seconds=outcome.seconds,
        error_type=told.get("type"),
        message=storable_text(told.get("message") or "its steps were undone", 2000),
    )
