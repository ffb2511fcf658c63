"""The part of JobQ that looks up and cancels jobs, for `JobRef`, on jobq's own connections."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from jobq._core.validation import check_int
from jobq._postgres.adapters import async_executor, sync_executor
from jobq._postgres.pool import Pools
from jobq._postgres.sql import statement
from jobq.errors import JobBusy
from jobq.jobref import JobProgress, JobRef, JobReport, JobStatus
from jobq.settings import Settings

if TYPE_CHECKING:
    from jobq._postgres.script import Script
    from jobq.operations.audit import AuditRecord

# Number of tries, and seconds between them, if another transaction has locked a job.
_TRIES = 20
_PAUSE = 0.1
_MOST_ID = 2**63 - 1


class Lookups:
    """An application's methods for existing jobs."""

    _settings: Settings
    _pools: Pools
    waiting_helps: bool = True

    def ref(self, job_id: int) -> JobRef[Any]:
        """Return a reference to a job of any task by its id, as ``ref.id`` gives it.

        This call reads nothing. The result of the job comes as JSON types; ``task.ref(id)``
        converts it to the task's type. Raises InvalidOption if `job_id` is no integer: convert text
        from a URL or a form with ``int(…)``.
        """
        check_int("job_id", job_id, 0, _MOST_ID)
        return JobRef(job_id, created=False, replaced=False, key=None, source=self, decode=json.loads)

    def fetch_status(self, job_id: int) -> JobStatus | None:
        """Return the state, result and error of a job, or None if there is no such job."""
        with self._pools.connection() as own:
            return _found(sync_executor(own).execute(statement("job_result", self._settings.schema), {"id": job_id}))

    async def fetch_status_async(self, job_id: int) -> JobStatus | None:
        """Return the state, result and error of a job, like `fetch_status`."""
        async with self._pools.connection_async() as own:
            executor = await async_executor(own)
            return _found(await executor.execute(statement("job_result", self._settings.schema), {"id": job_id}))

    def report(self, job_id: int) -> JobReport | None:
        """Return further details of a job, or None if there is no such job."""
        with self._pools.connection() as own:
            return _report(sync_executor(own).execute(statement("job_report", self._settings.schema), {"id": job_id}))

    async def report_async(self, job_id: int) -> JobReport | None:
        """Return further details of a job, like `report`."""
        async with self._pools.connection_async() as own:
            executor = await async_executor(own)
            return _report(await executor.execute(statement("job_report", self._settings.schema), {"id": job_id}))

    def cancel_job(self, job_id: int, reason: str | None) -> bool | None:
        """Cancel a job like ``JobRef.cancel``; None: there is no such job. Raises JobBusy."""
        # Imported here because workers and producers do not need it.
        from jobq._postgres.script import run_script
        from jobq.operations.audit import AuditRecord, current_actor

        note = AuditRecord("cancel", current_actor("python"), reason)
        for attempt in range(_TRIES):
            if attempt:
                time.sleep(_PAUSE)
            with self._pools.connection() as own:
                done, state = run_script(sync_executor(own), self._settings.schema, self._cancelling(job_id, note))
            if done or state is None or _ended(state):
                return done if done or state is not None else None
        raise _busy(job_id)

    async def cancel_job_async(self, job_id: int, reason: str | None) -> bool | None:
        """Cancel a job, like `cancel_job`."""
        from jobq._postgres.script import run_script_async
        from jobq.operations.audit import AuditRecord, current_actor

        note = AuditRecord("cancel", current_actor("python"), reason)
        for attempt in range(_TRIES):
            if attempt:
                await asyncio.sleep(_PAUSE)
            async with self._pools.connection_async() as own:
                script = self._cancelling(job_id, note)
                done, state = await run_script_async(await async_executor(own), self._settings.schema, script)
            if done or state is None or _ended(state):
                return done if done or state is not None else None
        raise _busy(job_id)

    def _cancelling(self, job_id: int, note: AuditRecord) -> Script[tuple[bool, str | None]]:
        """Return whether the job was cancelled or asked to stop.

        Otherwise, return its state, or None if it is gone.
        """
        schema, error = (
            self._settings.schema,
            f"cancelled by {note.actor.name}" + (f": {note.reason}" if note.reason else ""),
        )
        rows = yield "cancel_idle", {"ids": [job_id], "error": error, "channel": schema}
        if not rows:
            rows = yield "cancel_running", {"ids": [job_id], "channel": schema}
        if rows:
            _, before, after = rows[0]
            yield "audit_write", note.row({"ids": [job_id]}, before=before, after=after)
            return True, None
        states = yield "job_states", {"ids": [job_id]}
        return False, states[0][1] if states else None


def _ended(state: str) -> bool:
    return JobStatus(state=state).finished  # type: ignore[arg-type]  # a state, by the database's check


def _busy(job_id: int) -> JobBusy:
    return JobBusy(f"job {job_id}: a worker or another operator is changing it at this moment; try again")


def _found(rows: Sequence[tuple[Any, ...]]) -> JobStatus | None:
    if not rows:
        return None
    state, result, error = rows[0]
    return JobStatus(state=state, result=result, error=error)


def _report(rows: Sequence[tuple[Any, ...]]) -> JobReport | None:
    if not rows:
        return None
    state, attempt, max_attempts, due_in, done, total, error, error_type, message = rows[0]
    if error_type is not None:
        error = error_type if message in (None, "", error_type) else f"{error_type}: {message}"
    progress = None if done is None else JobProgress(int(done), None if total is None else int(total))
    return JobReport(
        state=state, attempt=attempt, max_attempts=max_attempts, due_in=due_in, progress=progress, error=error
    )
