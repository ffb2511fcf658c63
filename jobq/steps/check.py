"""Replays the stored steps of a job against the present code, and runs no step."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Iterable
from concurrent.futures import Future
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal, Protocol
from uuid import UUID

from jobq.context import CurrentJob, use_current_job
from jobq.errors import InvalidArguments, ResultError, StepChanged
from jobq.job import NewJob
from jobq.steps.log import StepLog, UndoNow
from jobq.steps.store import Holder, LoadSteps, StepRequest, StoredStep
from jobq.steps.suspension import suspension_in

_NO_WORKER = UUID(int=0)

Outcome = Literal["fits", "changed", "misfit", "raised"]


class DurableTask(Protocol):
    """What a replay needs of a task."""

    @property
    def app(self) -> Any: ...

    @property
    def name(self) -> str: ...

    @property
    def is_async(self) -> bool: ...

    @property
    def function(self) -> Callable[..., Any]: ...

    def decode_arguments(self, raw: str, /) -> dict[str, Any]: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Replayed:
    """How the stored steps of one job fit the code.

    ``fits``: the task came to the end of what is stored. ``changed``: it came to a step that is
    stored otherwise. ``misfit``: stored arguments or results do not fit the types of the code.
    ``raised``: the task raised an error, as it may have done before.
    """

    job_id: int
    task: str
    outcome: Outcome
    replayed: int
    """Number of stored steps to which it came."""
    step: str | None = None
    """The step that has changed."""
    stored: str | None = None
    """Its stored arguments, as JSON text."""
    given: str | None = None
    """Its arguments in the present code, as JSON text."""
    message: str | None = None

    @property
    def is_good(self) -> bool:
        return self.outcome in ("fits", "raised")


@dataclass
class _ReadSteps:
    """A `StepStore` from which steps can only be read. No request to store arrives: new steps end the replay."""

    steps: list[StoredStep]

    def submit(self, holder: Holder, request: StepRequest) -> Future[Any]:
        """Return the stored steps."""
        reply: Future[Any] = Future()
        if isinstance(request, LoadSteps):
            reply.set_result(self.steps)
        else:
            # A sleep whose time is over, a loop that was left: stored with the next step.
            reply.set_result(None)
        return reply


@dataclass
class _NoHost:
    """What steps need of the application: a child that has not been looked at has not ended."""

    task: DurableTask

    def decoder(self, job: NewJob) -> Any:
        return self.task.app.get_task(job.task).arguments.decode_result

    def look(self, child: int | None) -> None:
        return None

    async def look_async(self, child: int | None) -> None:
        return None

    def never(self, *_: Any) -> Any:
        raise AssertionError("a replay begins no step")

    start_child = start_child_async = in_transaction = in_transaction_async = never


def replay(task: DurableTask, job: dict[str, Any], steps: Iterable[StoredStep]) -> Replayed:
    """Call a durable task with a job's stored steps, up to the first step that is not done.

    The code between steps runs; functions of steps do not. Resources are not made.
    """
    stored = list(steps)
    log = StepLog(
        holder=Holder(job["id"], 2, _NO_WORKER, 0, job["attempt"]),
        task=task.name,
        store=_ReadSteps(stored),
        is_async=task.is_async,
        max_result_bytes=2**31 - 1,
        # A new step ends the execution, as in a worker that stops.
        is_cancelled=lambda: True,
        is_stopping=lambda: True,
        host=_NoHost(task),
    )
    current = CurrentJob(
        id=job["id"],
        task=task.name,
        queue=job["queue"],
        attempt=max(job["attempt"], 1),
        max_attempts=job["max_attempts"],
        headers=json.loads(job["headers"]),
        steps=log,
    )
    told = partial(Replayed, job_id=job["id"], task=task.name)
    try:
        arguments = task.decode_arguments(job["args"])
        with use_current_job(current):
            found = task.function(**arguments)
            if task.is_async:
                asyncio.run(found)
    except StepChanged as error:
        return told(
            outcome="changed",
            replayed=log.asked,
            step=error.name,
            stored=error.stored,
            given=error.given,
            message=str(error),
        )
    except (InvalidArguments, ResultError) as error:
        return told(outcome="misfit", replayed=log.asked, message=str(error))
    except BaseException as error:
        if suspension_in(error) is not None or isinstance(error, UndoNow):
            return told(outcome="fits", replayed=log.asked)
        if isinstance(error, KeyboardInterrupt):
            raise
        return told(outcome="raised", replayed=log.asked, message=f"{type(error).__name__}: {error}")
    return told(outcome="fits", replayed=log.asked)
