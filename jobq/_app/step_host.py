"""What the steps of a durable job need from the application: children, and transactions."""

from __future__ import annotations

import inspect
import json
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager, AbstractContextManager, closing
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Protocol

from jobq._app.step_transaction import AsyncStepTransaction, Engines, SyncStepTransaction
from jobq._postgres.adapters import async_executor, sync_executor
from jobq._postgres.sql import statement
from jobq.context import current_job, use_current_job
from jobq.errors import InvalidOption, NotDurable
from jobq.job import NewJob
from jobq.steps.log import StepLog
from jobq.steps.rows import commit_parameters
from jobq.steps.store import NewStep
from jobq.steps.suspension import ExecutionLost
from jobq.workflow import Workflow
from jobq.workflow.node import Node

if TYPE_CHECKING:
    import psycopg

    from jobq.settings import Settings
    from jobq.task import BaseTask


class Application(Protocol):
    """What is needed from the application."""

    @property
    def settings(self) -> Settings: ...

    def get_task(self, name: str, /) -> BaseTask[..., Any]: ...

    def connection(self) -> AbstractContextManager[psycopg.Connection[Any]]: ...

    def connection_async(self) -> AbstractAsyncContextManager[psycopg.AsyncConnection[Any]]: ...


class StepHost:
    """One application, as the steps of its jobs use it."""

    def __init__(self, app: Application) -> None:
        self._app = app
        self._engines = Engines()

    # --- children --------------------

    def decoder(self, job: NewJob) -> Callable[[str], Any]:
        """Return what converts the result of a child. Raises UnknownTask, and InvalidOption for an unusable option."""
        for name in ("key", "run_at"):
            if getattr(job.options, name) is not None:
                raise InvalidOption(
                    f"step.invoke: the job has {name}={getattr(job.options, name)!r}: leave it out; the step inserts the job "
                    "once, when the task comes to it"
                )
        return self._app.get_task(job.task).arguments.decode_result

    def start_child(self, log: StepLog, job: NewJob, step: NewStep) -> None:
        """Insert a child and its step in one transaction. Raises ExecutionLost."""
        with self._app.connection() as connection, connection.transaction():
            run = self._child(log, job, step).enqueue(connection)
            self._commit(connection, log, [replace(step, child_id=run.id)])

    async def start_child_async(self, log: StepLog, job: NewJob, step: NewStep) -> None:
        """Insert a child and its step, like `start_child`."""
        async with self._app.connection_async() as connection, connection.transaction():
            run = await self._child(log, job, step).enqueue_async(connection)
            await self._commit_async(connection, log, [replace(step, child_id=run.id)])

    def look(self, child: int | None) -> tuple[str, str | None, str | None] | None:
        """Return state, result and error of a child; None: it has not ended."""
        with self._app.connection() as connection:
            return _ended(sync_executor(connection).execute(self._statement("step_child"), {"id": child}))

    async def look_async(self, child: int | None) -> tuple[str, str | None, str | None] | None:
        """Return how a child has ended, like `look`."""
        async with self._app.connection_async() as connection:
            executor = await async_executor(connection)
            return _ended(await executor.execute(self._statement("step_child"), {"id": child}))

    def _child(self, log: StepLog, job: NewJob, step: NewStep) -> Workflow:
        # The key: of two executions of the step, one inserts it.
        key = f"{log.holder.job_id}/{step.key.args_hash}/{step.key.number}"
        workflow = Workflow(self._app, job.task, key=key, on_failure="continue")
        task: Any = self._app.get_task(job.task)
        Node(workflow, task, job.options, json.loads(job.args_json), [])
        return workflow

    # --- transactions --------------------

    def in_transaction(
        self, log: StepLog, function: Callable[[], Any], steps: Callable[[Any], list[NewStep]]
    ) -> list[NewStep]:
        """Call the function of a step in a transaction, and commit it with the steps made of its result.

        Raises ExecutionLost.
        """
        with self._app.connection() as connection, connection.transaction():
            transaction = SyncStepTransaction(connection, self._engines)
            with closing(transaction), use_current_job(replace(current_job(), transaction=transaction)):
                rows = steps(function())
                transaction.finish()
            self._commit(connection, log, rows)
        return rows

    async def in_transaction_async(
        self, log: StepLog, function: Callable[[], Any], steps: Callable[[Any], list[NewStep]]
    ) -> list[NewStep]:
        """Call an async function of a step in a transaction, like `in_transaction`."""
        async with self._app.connection_async() as connection, connection.transaction():
            transaction = AsyncStepTransaction(connection, self._engines)
            try:
                with use_current_job(replace(current_job(), transaction=transaction)):
                    value = function()
                    if not inspect.isawaitable(value):
                        raise NotDurable("step.run_async: a transactional step of an async task must be an `async def`")
                    rows = steps(await value)
                    await transaction.finish()
            finally:
                await transaction.close()
            await self._commit_async(connection, log, rows)
        return rows

    def _commit(self, connection: psycopg.Connection[Any], log: StepLog, steps: list[NewStep]) -> None:
        values = commit_parameters(log.holder, steps)
        _check(log, steps, sync_executor(connection).execute(self._statement("steps_commit"), values))

    async def _commit_async(self, connection: psycopg.AsyncConnection[Any], log: StepLog, steps: list[NewStep]) -> None:
        executor = await async_executor(connection)
        values = commit_parameters(log.holder, steps)
        _check(log, steps, await executor.execute(self._statement("steps_commit"), values))

    def _statement(self, name: str) -> Any:
        return statement(name, self._app.settings.schema)


def _check(log: StepLog, steps: list[NewStep], rows: Any) -> None:
    if rows[0][0] < len(steps):
        raise ExecutionLost(
            f"job {log.holder.job_id}: another execution holds the job, or has stored step {steps[-1].key.name!r}"
        )


def _ended(rows: Any) -> tuple[str, str | None, str | None] | None:
    return tuple(rows[0]) if rows else None
