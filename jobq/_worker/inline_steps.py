"""The steps of durable jobs that run in the calling process: stored at once, on the connection of the caller."""

from __future__ import annotations

from concurrent.futures import Future
from typing import Any

from psycopg import Connection
from psycopg.rows import tuple_row

from jobq._postgres.sql import statement
from jobq.steps import rows
from jobq.steps.store import Holder, LoadSteps, RestartJob, RunAgain, SetStepsAside, StepRequest, TakeSignal
from jobq.steps.suspension import ExecutionLost


class InlineSteps:
    """A `StepStore` on one connection. One thread at a time may use it."""

    def __init__(self, connection: Connection[Any], schema: str) -> None:
        self._connection = connection
        self._schema = schema

    def submit(self, holder: Holder, request: StepRequest) -> Future[Any]:
        """Carry out `request` at once."""
        reply: Future[Any] = Future()
        try:
            reply.set_result(self._perform(holder, request))
        except BaseException as error:
            reply.set_exception(error)
        return reply

    def _perform(self, holder: Holder, request: StepRequest) -> Any:
        if isinstance(request, LoadSteps):
            return rows.loaded(self._fetch("steps_load", {"ids": [holder.job_id]})).get(holder.job_id, [])
        if isinstance(request, RunAgain):
            self._fetch("steps_run_again", rows.run_again_parameters(holder, request.keys, request.at_once))
            return None
        if isinstance(request, TakeSignal):
            values = rows.wait_parameters(holder, request.key, request.place, request.timeout)
            if found := self._fetch("step_wait", values):
                return rows.waited(request.key, request.place, found[0])
        elif isinstance(request, SetStepsAside):
            if self._fetch("steps_undone", rows.holder_parameters(holder)):
                return None
        elif isinstance(request, RestartJob):
            if self._fetch("step_restart", {**rows.holder_parameters(holder), "args": request.args}):
                return None
        else:
            steps = [(holder, step) for step in request.steps]
            if len(self._fetch("steps_write", rows.write_parameters(steps))) == len(steps):
                return None
        raise ExecutionLost(f"job {holder.job_id} does not belong to this execution any more")

    def _fetch(self, name: str, parameters: dict[str, Any]) -> list[tuple[Any, ...]]:
        with self._connection.cursor(row_factory=tuple_row) as cursor:
            return cursor.execute(statement(name, self._schema).query, parameters).fetchall()
