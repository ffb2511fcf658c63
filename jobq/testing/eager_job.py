"""Jobs in eager mode, and the keys that they hold."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any

from jobq.errors import KeyConflict
from jobq.job import InsertResult, JobOptions, JobState, NewJob
from jobq.jobref import JobProgress


@dataclass(kw_only=True)
class EagerJob:
    """A job that was enqueued in eager mode."""

    id: int
    task: str
    options: JobOptions
    args: dict[str, Any]
    """Arguments by name, as JSON types."""
    state: JobState = "ready"
    attempt: int = 0
    """Number of attempts begun so far."""
    claims: int = field(default=0, repr=False)
    """Number of executions."""
    result: Any = None
    """What the task returned, as JSON types."""
    error: str | None = None
    """Type and text of the last attempt's error."""
    exception: BaseException | None = field(default=None, repr=False)
    """The exception of the last attempt."""
    progress: JobProgress | None = None
    result_json: str | None = field(default=None, repr=False)
    args_json: str = field(default="{}", repr=False)

    @property
    def holds_key(self) -> bool:
        """Whether it still holds its key, if it has one.

        A key that holds for a period is held until the end of the test.
        """
        match self.options.key_holds:
            case "until_started":
                return self.attempt == 0 and self.state == "ready"
            case "until_finished":
                return self.state in ("ready", "running")
            case _:
                return True


class EagerKeys:
    """The job that holds each key of each task."""

    def __init__(self) -> None:
        self._holders: dict[tuple[str, str], EagerJob] = {}

    def conflict(self, new: NewJob) -> tuple[EagerJob, InsertResult] | None:
        """Return the job that holds the key of `new`, and the result by ``on_conflict``.

        None: the key is free. Raises KeyConflict.
        """
        options = new.options
        if options.key is None:
            return None
        holder = self._holders.get((options.task, options.key))
        if holder is None or not holder.holds_key:
            return None
        if options.on_conflict == "raise":
            raise KeyConflict(options.key, holder.id)
        replaced = options.on_conflict == "replace" and holder.state == "ready" and not holder.attempt
        if replaced:
            holder.args_json, holder.args = new.args_json, json.loads(new.args_json)
        return holder, InsertResult(holder.id, False, replaced)

    def take(self, job: EagerJob) -> None:
        """Let `job` hold its key, if it has one."""
        if job.options.key is not None:
            self._holders[job.task, job.options.key] = job
