"""The part of JobQ that looks jobs up and cancels them, for `JobRef`, on connections of jobq's own."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from jobq.bounds import whole
from jobq.config import Settings
from jobq.connections import async_executor, sync_executor
from jobq.errors import JobBusy
from jobq.pools import Pools
from jobq.refs import Found, JobProgress, JobRef, JobReport
from jobq.sql import statement

if TYPE_CHECKING:
    from jobq.operations.actors import Note
    from jobq.operations.scripts import Script

# A job that another transaction has locked at this moment is tried again so often, after so many seconds.
_TRIES = 20
_PAUSE = 0.1
_MOST_ID = 2**63 - 1


class Lookups:
    """What an application does with jobs that are there already."""

    _settings: Settings
    _pools: Pools
    waiting_helps: bool = True

    def ref(self, job_id: int) -> JobRef[Any]:
        """Return a reference to a job by its id, as ``ref.id`` gave it, whatever its task: nothing is read here.

        Its result comes as JSON's own types; ``task.ref(id)`` gives it the task's type. Raises InvalidOption for what is
        no id: give ``int(…)`` of what an address or a form brings.
        """
        whole("job_id", job_id, 0, _MOST_ID)
        return JobRef(job_id, created=False, replaced=False, key=None, source=self, decode=json.loads)

    def look_up(self, job_id: int) -> Found | None:
        """Return what the database says of a job, or None when it knows none of this id."""
        with self._pools.connection() as own:
            return _found(sync_executor(own).execute(statement("job_result", self._settings.schema), {"id": job_id}))

    async def look_up_async(self, job_id: int) -> Found | None:
        """Return what the database says of a job, like `look_up`."""
        async with self._pools.connection_async() as own:
            executor = await async_executor(own)
            return _found(await executor.execute(statement("job_result", self._settings.schema), {"id": job_id}))

    def report(self, job_id: int) -> JobReport | None:
        """Return more of what the database says of a job, or None when it knows none of this id."""
        with self._pools.connection() as own:
            return _report(sync_executor(own).execute(statement("job_report", self._settings.schema), {"id": job_id}))

    async def report_async(self, job_id: int) -> JobReport | None:
        """Return more of what the database says of a job, like `report`."""
        async with self._pools.connection_async() as own:
            executor = await async_executor(own)
            return _report(await executor.execute(statement("job_report", self._settings.schema), {"id": job_id}))

    def cancel_job(self, job_id: int, reason: str | None) -> bool | None:
        """Cancel a job as ``JobRef.cancel`` says; None when the database knows none of this id. Raises JobBusy."""
        # Not at the top: workers and producers need none of it.
        from jobq.operations.actors import Note, current_actor
        from jobq.operations.scripts import play

        note = Note("cancel", current_actor("python"), reason)
        for attempt in range(_TRIES):
            if attempt:
                time.sleep(_PAUSE)
            with self._pools.connection() as own:
                done, state = play(sync_executor(own), self._settings.schema, self._cancelling(job_id, note))
            if done or state is None or _ended(state):
                return done if done or state is not None else None
        raise _busy(job_id)

    async def cancel_job_async(self, job_id: int, reason: str | None) -> bool | None:
        """Cancel a job, like `cancel_job`."""
        from jobq.operations.actors import Note, current_actor
        from jobq.operations.scripts import play_async

        note = Note("cancel", current_actor("python"), reason)
        for attempt in range(_TRIES):
            if attempt:
                await asyncio.sleep(_PAUSE)
            async with self._pools.connection_async() as own:
                script = self._cancelling(job_id, note)
                done, state = await play_async(await async_executor(own), self._settings.schema, script)
            if done or state is None or _ended(state):
                return done if done or state is not None else None
        raise _busy(job_id)

    def _cancelling(self, job_id: int, note: Note) -> Script[tuple[bool, str | None]]:
        """Return whether the job was cancelled, or asked to stop; else its state, or None when there is none."""
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
    return Found(state=state).finished  # type: ignore[arg-type]  # a state, by the database's check


def _busy(job_id: int) -> JobBusy:
    return JobBusy(f"job {job_id}: a worker or another operator is changing it at this moment; try again")


def _found(rows: Sequence[tuple[Any, ...]]) -> Found | None:
    if not rows:
        return None
    state, result, error = rows[0]
    return Found(state=state, result=result, error=error)


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
